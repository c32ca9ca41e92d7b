"""A large log on its way from a program to a reader, across disconnects, beside readers who stop reading."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.processes import Agent, Head, Process, wait_for, when_online

SOURCE = """
import hashlib, sys
seed, size = hashlib.sha256(sys.argv[1].encode()).digest(), int(sys.argv[2])
block, made = seed, 0
whole = hashlib.sha256()
while made < size:
    block = hashlib.sha256(block).digest()
    piece = (block * 2048)[: min(65536, size - made)]
    sys.stdout.buffer.write(piece)
    whole.update(piece)
    made += len(piece)
sys.stdout.buffer.flush()
open(sys.argv[3], "w").write(whole.hexdigest())
"""
"""Bytes that no text is made of; what they were is written down at the end."""


def rss(pid: int) -> int:
    """Bytes that this process holds in memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) * 1024


@contextlib.contextmanager
def deaf_stream(head: Head, job_id: int) -> Iterator[None]:
    """An event stream of the job's log that is asked for and never read."""
    host, port = head.url.removeprefix("http://").split(":")
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect((host, int(port)))
        sock.sendall(
            f"GET /v1/jobs/{job_id}/logs?follow=true HTTP/1.1\r\nHost: {host}:{port}\r\n"
            f"Authorization: Bearer {head.token('admin')}\r\nAccept: text/event-stream\r\n\r\n".encode()
        )
        yield


def digest_of_stored(head: Head, job_id: int) -> str:
    headers = {"Authorization": f"Bearer {head.token('admin')}", "Accept": "text/plain"}
    request = urllib.request.Request(f"{head.url}/v1/jobs/{job_id}/logs", headers=headers)
    whole = hashlib.sha256()
    with urllib.request.urlopen(request, timeout=120) as answer:
        while piece := answer.read(1 << 20):
            whole.update(piece)
    return whole.hexdigest()


def stored(head: Head, job_id: int) -> int:
    """Bytes of it in the coordinator's files."""
    return sum(path.stat().st_size for path in (head.data / "logs").glob(f"*/{job_id}/*.0.out"))


def _relay(directory: Path, size: int) -> dict[str, Any]:
    """One log of so many bytes; the daemon is killed at a third, the connection is cut at two thirds."""
    wrote = directory / "digest"
    with Head(directory) as head, head.start() as client, contextlib.ExitStack() as stack:
        agent = stack.enter_context(Agent(directory, head, "w1", "--cpus", "2"))
        when_online(client, agent)
        job_id = client.jobs.submit({"command": [sys.executable, "-c", SOURCE, "one", str(size), str(wrote)]}).job_id
        wait_for(lambda: stored(head, job_id), "the first bytes")
        before, most = rss(head.pid), 0
        stack.enter_context(deaf_stream(head, job_id))
        watcher = Process(
            (sys.executable, "-m", "cli.main", "logs", str(job_id), "-f"),
            directory / "watcher.out",
            {"COORD_URL": head.url, "COORD_TOKEN": head.token("admin")},
        )
        stack.callback(watcher.kill)
        watcher.spawn()
        wait_for(lambda: watcher.log.exists() and watcher.log.stat().st_size, "the first output of coord logs")
        watcher.signal(signal.SIGSTOP)
        began_s, cuts, slowest_s = time.monotonic(), 0, 0.0
        while stored(head, job_id) < size:
            assert time.monotonic() - began_s < 900, f"{stored(head, job_id)} of {size} bytes after 15 minutes"
            if cuts == 0 and stored(head, job_id) > size // 3:
                os.kill(agent.daemon_pid(), signal.SIGKILL)
                cuts = 1
            elif cuts == 1 and stored(head, job_id) > 2 * size // 3:
                cut_connection(agent, head)
                cuts = 2
            most = max(most, rss(head.pid))
            asked_s = time.monotonic()
            client.healthz()
            slowest_s = max(slowest_s, time.monotonic() - asked_s)
            time.sleep(0.05)
        took_s = time.monotonic() - began_s
        assert client.jobs.wait(job_id, timeout_s=60).state == "completed"
        (task,) = client.jobs.tasks(job_id, attempts=True).entries
        assert (task.attempts, task.losses) == (1, 0)
        assert cuts == 2
        assert digest_of_stored(head, job_id) == wrote.read_text(), "what is stored is not what was written"
        grew = max(most, rss(head.pid)) - before
        assert grew < 200 << 20, f"the coordinator grew by {grew >> 20} MiB"
        return {
            "bytes": size,
            "disconnects": cuts,
            "equal": True,
            "seconds": round(took_s, 1),
            "rss_before_mib": before >> 20,
            "rss_most_mib": most >> 20,
            "slowest_answer_s": round(slowest_s, 3),
        }


def cut_connection(agent: Agent, head: Head) -> None:
    """Its socket to the coordinator is destroyed where that is allowed; else its process is killed."""
    daemon, port = agent.daemon_pid(), head.url.rsplit(":", 1)[1]
    seen = subprocess.run(("ss", "-Htnp", "dport", "=", f":{port}"), capture_output=True, text=True, check=True).stdout
    (mine,) = [line.split()[3] for line in seen.splitlines() if f"pid={daemon}," in line]
    killed = subprocess.run(
        ("ss", "-HtK", "sport", "=", ":" + mine.rsplit(":", 1)[1]), capture_output=True, text=True, check=False
    )
    if mine not in killed.stdout:
        os.kill(daemon, signal.SIGKILL)


@pytest.mark.skipif(shutil.which("ss") is None, reason="ss, which cuts a connection, is not installed")
def test_a_log_is_stored_byte_for_byte_across_two_disconnects(tmp_path: Path) -> None:
    """Readers who read nothing cost bounded memory, and nobody waits for them."""
    _relay(tmp_path, 96 << 20)


@pytest.mark.soak
def test_a_gigabyte_of_log(tmp_path: Path) -> None:
    """The same, near the bound of an attempt's log."""
    print(json.dumps(_relay(tmp_path, 1_000_000_000)))
