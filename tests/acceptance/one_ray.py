"""A Ray of one node, with the dashboard that serves its jobs' API."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.acceptance.processes import wait_for


def ray_command() -> str | None:
    """Ray's command: COORD_TEST_RAY, or on the path."""
    return os.environ.get("COORD_TEST_RAY") or shutil.which("ray")


@contextmanager
def ray_head(command: str, root: Path) -> Iterator[str]:
    """Its dashboard's address, as long as the `with` block."""
    ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    gcs, dashboard = (one.getsockname()[1] for one in ports)
    for one in ports:
        one.close()
    start = [command, "start", "--head", "--block", f"--port={gcs}", f"--dashboard-port={dashboard}", "--num-cpus=2"]
    more = ["--disable-usage-stats", "--include-dashboard=true", "--min-worker-port=0", "--max-worker-port=0"]
    with (root / "out").open("wb") as out:
        head = subprocess.Popen(start + more, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    address = f"http://127.0.0.1:{dashboard}"

    def up() -> bool:
        try:
            with urllib.request.urlopen(f"{address}/api/version", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        wait_for(up, "Ray's dashboard", 60.0)
        yield address
    finally:
        os.killpg(head.pid, signal.SIGTERM)
        try:
            head.wait(5.0)
        except subprocess.TimeoutExpired:
            os.killpg(head.pid, signal.SIGKILL)
            head.wait()


def ray_submit(address: str, script: str) -> str:
    """Have a shell run this as a job; its submission id."""
    body = json.dumps({"entrypoint": f'sh -c "{script}"'}).encode()
    asked = urllib.request.Request(f"{address}/api/jobs/", body, {"content-type": "application/json"})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        return str(json.load(answer)["submission_id"])


def ray_stop(address: str, job: str) -> None:
    asked = urllib.request.Request(f"{address}/api/jobs/{job}/stop", b"", method="POST")
    with urllib.request.urlopen(asked, timeout=30):
        pass
