"""No secret is in anything that a run leaves behind or shows, but in the files that are there to keep it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import msgspec
import pytest

from bench.swarm import MACHINE, enrol_swarm
from coordinator import wire
from coordinator.client import Client
from coordinator.core.errors import CoordError
from tests.acceptance.cli_runs import Coord
from tests.acceptance.processes import GUARD_S, Agent, Head, when_online


def answers_to_strangers(head: Head, secrets: dict[str, str]) -> Iterator[str]:
    """What is said to requests with a broken copy of each secret, or with one where it does not belong."""
    for text in secrets.values():
        for path, header in (
            ("/v1/providers", f"Bearer {text}x"),
            ("/v1/providers", f"Basic {text}"),
            ("/v1/tokens", text),
            (f"/v1/providers?token={text}", ""),
            ("/v1/agents/connect", f"Bearer {text}"),
        ):
            request = urllib.request.Request(head.url + path, headers={"Authorization": header})
            try:
                with urllib.request.urlopen(request, timeout=GUARD_S) as answer:
                    yield answer.read().decode()
            except urllib.error.HTTPError as refused:
                with refused:
                    yield refused.read().decode() + str(refused.headers)


def everything_written(*places: Path) -> Iterator[tuple[Path, bytes]]:
    for place in places:
        for path in sorted(place.rglob("*")):
            if path.is_file() and not path.is_symlink():
                yield path, path.read_bytes()


def command_lines() -> Iterator[tuple[Path, bytes]]:
    """Of every process of this machine that there is."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield path, path.read_bytes()


async def speak(url: str, join: str) -> dict[str, str]:
    """Be an agent of the wire's own kind: enrol, connect, be superseded with the resume key; what was secret in it."""
    ((who, credential),) = (await enrol_swarm(url, join, "canary", 1)).items()
    hello = wire.Hello(versions=wire.VERSIONS, provider_id=who, machine_id=MACHINE, boot_id="b", process_id="p")
    secrets = {"the canary's credential": credential}
    headers = {"Authorization": f"Bearer {credential}"}
    async with aiohttp.ClientSession() as session:
        for turn in ("first", "second"):
            async with session.ws_connect(url + wire.CONNECT_PATH, headers=headers) as socket:
                await socket.send_json(msgspec.to_builtins(hello))
                welcome = await socket.receive_json(timeout=GUARD_S)
                assert welcome["type"] == "welcome"
                secrets[f"the canary's {turn} resume key"] = welcome["resume_key"]
                await socket.send_json({"type": "heartbeat", "seq": 1})
                assert (await socket.receive_json(timeout=GUARD_S))["type"] == "ack"
                await socket.send_json({"type": "hello", "resume_key": welcome["resume_key"]})
                assert (await socket.receive_json(timeout=GUARD_S))["type"] == "error"
                hello = msgspec.structs.replace(hello, resume_key=welcome["resume_key"])
    return secrets


def test_no_secret_is_left_behind_or_shown(tmp_path: Path) -> None:
    """After enrolments, reconnects, refusals, errors, a backup, commands of a client and an orderly stop,
    with logs at debug: the text of no token, credential or resume key is in any file but
    its own, in any command line, in any log, or in any answer to somebody who did not have it."""
    before = {path for path, _ in command_lines()}
    debug = ("--log-level", "debug")
    with Head(tmp_path, *debug) as head, head.start() as client, Agent(tmp_path, head, "w1", *debug) as agent:
        when_online(client, agent)
        secrets = {"admin token": head.token("admin"), "join token": head.token("join")}
        own = {head.data / "tokens" / "admin.token", head.data / "tokens" / "join.token", agent.state / "identity.json"}
        secrets["w1's credential"] = json.loads((agent.state / "identity.json").read_text())["credential"]
        reader = client.create_token(role="read-only", note="canary")
        revoked = client.create_token(role="admin", note="canary")
        client.revoke_token(revoked.entry.token_id)
        secrets |= {"reader": reader.token, "revoked": revoked.token}
        secrets |= asyncio.run(speak(head.url, head.token("join")))
        assert all(len(text) >= 20 for text in secrets.values())
        for token in (revoked.token, reader.token[:-1], head.token("join"), secrets["w1's credential"]):
            with Client(head.url, token) as stranger, pytest.raises(CoordError) as refused:
                stranger.tokens()
            assert not leaked(str(refused.value).encode() + refused.value.hint.encode(), secrets)
        for answer in answers_to_strangers(head, secrets):
            assert not leaked(answer.encode(), secrets), answer
        coord = Coord(head.data)
        shown = [
            coord(*command.split())
            for command in (
                "token list -o json",
                "providers show w1 -o json",
                "config show",
                "doctor",
                "alerts -o json",
            )
        ]
        assert not leaked("".join(done.out + done.err for done in shown).encode(), secrets)
        client.backup()
        os.kill(agent.daemon_pid(), signal.SIGKILL)
        when_online(client, agent)
        ours = [(path, text) for path, text in command_lines() if path not in before]
        assert any(b"cli" in text for _, text in ours)
        assert not [path for path, text in ours if leaked(text, secrets)]
        assert not leaked(client.metrics().encode() + json.dumps(client.openapi()).encode(), secrets)
        head.signal(signal.SIGTERM)
        assert head.wait() == 0
        files = list(everything_written(tmp_path))
        assert {path for path, text in files if leaked(text, secrets)} == own
        assert {"serve.log", "agent-w1.log", "truth.sqlite"} <= {path.name for path, _ in files}


def leaked(text: bytes, secrets: dict[str, str]) -> list[str]:
    """The names of the secrets whose text, or enough of it to guess the rest, is in there."""
    return [name for name, secret in secrets.items() if secret.encode() in text or secret[-20:].encode() in text]
