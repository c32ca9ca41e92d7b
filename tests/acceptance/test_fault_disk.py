"""A disk that is full for a while, and one that fails for good, under a coordinator that is at work."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.client import Client, every
from coordinator.core.errors import Code, CoordError
from coordinator.timetext import parse_time
from tests.acceptance.processes import GUARD_S, Agent, Head, liveness, sessions_of, wait_for, when_online

QUICK = ("--set", "policy.heartbeat_interval_ms=1s", "--set", "upkeep.alerts_s=200ms")


@contextlib.contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """A file system of its own, unmounted at the end; the test is skipped where that is not allowed."""
    place.mkdir()
    mounted = subprocess.run(
        ("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)), capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        # Lazily: killed children of the coordinator may take a moment to be gone, and they hold files there.
        subprocess.run(("umount", "--lazy", str(place)), check=True)


class Filler:
    """Takes all the room there is, again and again; `free` gives it back."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def fill(self) -> None:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    os.write(self._fd, bytes(size))
            except OSError as error:
                assert error.errno == errno.ENOSPC

    def free(self) -> None:
        os.close(self._fd)
        self._path.unlink()


def standing(client: Client, kind: str) -> bool:
    """Whether an alert of this kind stands."""
    return any(entry.kind == kind and entry.resolved_at is None for entry in client.alerts().entries)


def metric(client: Client, name: str) -> float:
    """The sum over the labels of one metric."""
    lines = [line for line in client.metrics().splitlines() if line.startswith((name + " ", name + "{"))]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def status_of_a_write(head: Head) -> tuple[int, str]:
    """HTTP status and problem of a request that writes."""
    headers = {"Authorization": f"Bearer {head.token('admin')}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{head.url}/v1/tokens", b'{"role": "read-only"}', headers)
    try:
        with urllib.request.urlopen(request, timeout=GUARD_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()


class Ledger:
    """Tokens that were acknowledged, and how often one was refused for want of room."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.made: set[str] = set()
        self.refused = 0

    def write(self) -> bool:
        try:
            made = self._client.create_token(role="read-only", note=f"number {len(self.made)}")
        except CoordError as error:
            if error.code is not Code.STORE_FULL:
                raise
            assert "free some space" in error.hint
            self.refused += 1
            return False
        self.made.add(made.entry.token_id)
        return True

    def lost(self) -> set[str]:
        pages = every(lambda page: self._client.tokens(role="read-only", limit=500, page=page))
        return self.made - {entry.token_id for listed in pages for entry in listed.entries}


def _full_disk(directory: Path, full_s: float) -> dict[str, object]:
    """Fill the disk for `full_s` under writes, with an agent that stays and one that dies meanwhile."""
    with (
        small_disk(directory / "disk", "24m") as disk,
        Head(disk, *QUICK) as head,
        head.start() as client,
        Agent(directory, head, "stays") as stays,
        Agent(directory, head, "dies") as dies,
    ):
        when_online(client, stays, dies)
        first = sessions_of(client, "stays")[0]
        ledger, filler = Ledger(client), Filler(disk / "filler")
        assert ledger.write()
        began = time.monotonic()

        def full() -> bool:
            filler.fill()
            return not ledger.write()

        wait_for(full, "the disk being full")
        # A checkpoint may give some room back between two writes: filled again, the next one is refused.
        wait_for(lambda: full() and status_of_a_write(head)[0] == 507, "a refusal with 507")
        dies.signal_all(signal.SIGKILL)
        died_ms = time.time() * 1_000
        wait_for(lambda: full() and standing(client, "disk"), "the alert")
        wait_for(lambda: full() and client.readyz().status == "store_full", "being unready")
        while time.monotonic() - began < full_s:
            full()
        assert liveness(client)["stays"] == "online"
        filler.free()
        freed = time.monotonic()
        wait_for(ledger.write, "the store taking writes again")
        recovered_s = time.monotonic() - freed
        wait_for(lambda: not standing(client, "disk"), "the end of the alert")
        assert any(entry.kind == "disk" and entry.resolved_at for entry in client.alerts().entries)
        assert not ledger.lost()
        (session,) = sessions_of(client, "stays")
        assert (session.session_id, session.disconnected_at) == (first.session_id, None)
        wait_for(lambda: sessions_of(client, "dies")[0].disconnect_reason, "the end of the dead agent's session")
        (ended,) = sessions_of(client, "dies")
        assert ended.disconnect_reason == "read_error"
        assert ended.disconnected_at is not None and parse_time(ended.disconnected_at) <= died_ms + 1_000
        wait_for(lambda: metric(client, "coord_heartbeats_waiting") <= 1, "the heartbeats of the time being stored")
        assert metric(client, "coord_heartbeats_dropped_total") == 0
        assert client.check().problems == ()
        return {
            "full_s": full_s,
            "acknowledged": len(ledger.made),
            "refused": ledger.refused,
            "lost": 0,
            "recovered_s": round(recovered_s, 2),
        }


def test_a_full_disk_refuses_loses_nothing_and_recovers_by_itself(tmp_path: Path) -> None:
    """Callers get 507 and are told what to do; sessions go on, or end when they ended; no heartbeat is dropped."""
    _full_disk(tmp_path, 3.0)


@pytest.mark.soak
def test_a_disk_full_for_a_minute(tmp_path: Path) -> None:
    """The same for longer than any patience."""
    print(json.dumps(_full_disk(tmp_path, 60.0)))


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace, which makes an fsync fail, is not installed")
def test_a_failed_fsync_ends_it_with_70_and_the_next_start_goes_on(tmp_path: Path) -> None:
    """The n-th fsync of the running coordinator fails: nothing more is acknowledged, nothing acknowledged is lost,
    and the agent's session goes on with the next start."""
    with Head(tmp_path, *QUICK) as head, Agent(tmp_path, after_start(head), "w1") as agent:
        with head.client() as client:
            when_online(client, agent)
            first = sessions_of(client, "w1")[0]
            inject = ("-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO:when=5+")
            trace = tmp_path / "trace"
            tracer = subprocess.Popen(
                ("strace", "-f", "-qq", "-o", str(trace), *inject, "-p", str(head.pid)), stderr=subprocess.PIPE
            )
            try:
                wait_for(lambda: trace.exists() or tracer.poll() is not None, "strace")
                if tracer.poll() is not None:
                    assert tracer.stderr is not None
                    pytest.skip(f"strace may not attach here: {tracer.stderr.read().decode().strip()}")
                ledger = Ledger(client)
                with pytest.raises(CoordError) as refused:
                    while len(ledger.made) < 10_000:
                        ledger.write()
                assert refused.value.code in (Code.SHUTTING_DOWN, Code.UNREACHABLE)
                assert head.wait() == 70
            finally:
                tracer.kill()
                tracer.communicate()
        assert "coord db restore" in head.text() and "Traceback" not in head.text()
        (recording,) = (head.data / "recorder").iterdir()
        assert head.token("admin").encode() not in recording.read_bytes(), "events carry digests alone"
        with head.start() as client:
            when_online(client, agent)
            known = {entry.token_id for entry in client.tokens(role="read-only", limit=500).entries}
            assert ledger.made <= known
            assert len(known - ledger.made) <= 1, "more than the one request that was under way"
            assert [row.session_id for row in sessions_of(client, "w1")] == [first.session_id]
            assert client.check().problems == ()


def after_start(head: Head) -> Head:
    """The head, ready for agents."""
    head.start().close()
    return head
