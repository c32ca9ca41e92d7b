"""`coord attrsvc` as launchers meet it: a process of its own, its socket, and the conversation that they have.

The launcher here follows what NVRx's does at the wire: a progressive POST at the start of a cycle, a terminal POST when
it has failed, a GET that does not wait every so often, and a STOP that is obeyed only when it was asked to. The real
client of nvidia-resiliency-ext runs where `NVRX_PYTHON` names a Python that can import it.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil
import pytest

from cli import exits
from tests.acceptance.processes import COORD, Head, Process, clean_environment, wait_for
from tests.unit.analytics.desk.service import HEAD, RESTARTS, ROWS, STOPS

POLL_S = 0.1


class Attrsvc(Process):
    """`coord attrsvc` over the logs in `directory/logs`."""

    def __init__(self, directory: Path, listen: str, *more: str) -> None:
        self.root = directory / "logs"
        self.root.mkdir(exist_ok=True)
        rows = directory / "rows.tsv"
        rows.write_text("\n".join([HEAD, *("\t".join([*row, "a test's"]) for row in ROWS)]) + "\n")
        argv = (*COORD, "attrsvc", "--root", str(self.root), "--listen", listen, "--signatures", str(rows), *more)
        super().__init__(argv, directory / "attrsvc.log")

    def __enter__(self) -> Attrsvc:
        self.spawn()
        self.address = wait_for(self._address, "coord attrsvc listens")
        return self

    def _address(self) -> str | None:
        assert self.popen is not None and self.popen.poll() is None, self.text()
        found = re.search(r"listening on (\S+),", self.text())
        return found[1] if found else None

    def ask(self, method: str, route: str, body: Any = None) -> tuple[int, Any]:
        connection = _Connection(self.address)
        try:
            data = json.dumps(body).encode() if body is not None else None
            connection.request(method, route, data, {"Content-Type": "application/json"} if data else {})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()


class _Connection(http.client.HTTPConnection):
    """Over TCP or a unix socket, as the address says."""

    def __init__(self, address: str) -> None:
        self._path = address.removeprefix("unix://") if address.startswith("unix://") else ""
        host = "nvrx-attrsvc" if self._path else address.removeprefix("http://")
        super().__init__(host, timeout=20)

    def connect(self) -> None:
        if not self._path:
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)


class Launcher:
    """One job's in-job client: it posts, polls beside the job, and latches the first STOP."""

    def __init__(self, service: Attrsvc, enforce_stop: bool) -> None:
        self._service = service
        self._enforce_stop = enforce_stop
        self._pending: Path | None = None
        self._over = threading.Event()
        self.statuses: list[str] = []
        self.verdicts: list[dict[str, Any]] = []
        self.stop_seen = False
        self._poller = threading.Thread(target=self._poll)

    def begin_cycle(self, log: Path) -> None:
        self._post(log, "progressive")

    def has_failed(self, log: Path) -> None:
        self._post(log, "terminal")
        self._pending = log

    @property
    def must_stop(self) -> bool:
        return self.stop_seen and self._enforce_stop

    def verdict_of(self, cycle: int) -> Callable[[], bool]:
        """Whether it has come."""
        return lambda: len(self.verdicts) > cycle

    def _post(self, log: Path, intent: str) -> None:
        body = {"log_path": str(log), "user": "ada", "job_id": "77", "analysis_intent": intent}
        status, answer = self._service.ask("POST", "/logs", body)
        assert (200, True) == (status, answer["submitted"]) and "result" not in answer

    def _poll(self) -> None:
        while not self._over.wait(POLL_S):
            log = self._pending
            if log is None:
                continue
            query = urlencode({"log_path": str(log), "wait": "false"})
            status, answer = self._service.ask("GET", f"/logs?{query}")
            assert status == 200
            self.statuses.append(answer["status"])
            if answer["status"] == "completed":
                self._pending = None
                self.stop_seen |= answer["recommendation"]["action"] == "STOP"
                self.verdicts.append(answer)

    def __enter__(self) -> Launcher:
        self._poller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._poller.join()


@pytest.mark.parametrize("enforce", (True, False))
def test_a_launcher_has_its_verdicts_while_the_next_cycles_run(tmp_path: Path, enforce: bool) -> None:
    """Two cycles: the first may be started again, the second may not; a STOP is obeyed only when it was asked to."""
    with Attrsvc(tmp_path, "127.0.0.1:0") as service, Launcher(service, enforce) as launcher:
        for cycle, (text, action) in enumerate(((RESTARTS, "RESTART"), (STOPS, "STOP"))):
            assert not launcher.must_stop
            log = service.root / f"run_cycle{cycle}.log"
            launcher.begin_cycle(log)
            for line in text.splitlines(keepends=True):
                with log.open("ab") as file:
                    file.write(line)
            launcher.has_failed(log)
            wait_for(launcher.verdict_of(cycle), "the verdict came")
            answer = launcher.verdicts[-1]
            assert (action, True) == (answer["recommendation"]["action"], answer["result"]["progressive"])
            assert answer["recommendation"]["reason"]
        assert (True, enforce) == (launcher.stop_seen, launcher.must_stop)
        status, stats = service.ask("GET", "/stats")
        assert (200, 2, 2) == (status, stats["progressive_posts"]["accepted"], stats["ends"]["count"])


def test_the_socket_is_its_owners_and_goes_with_the_service(tmp_path: Path) -> None:
    """0600; one that nobody listens at is taken over, one that somebody listens at is not, nor is a file."""
    path = tmp_path / "attrsvc.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    with Attrsvc(tmp_path, f"unix://{path}") as service:
        assert 0o600 == stat.S_IMODE(path.stat().st_mode)
        assert (200, {"status": "ok", "issues": []}) == service.ask("GET", "/healthz")
        second = _refused(tmp_path, f"unix://{path}")
        assert (73, True) == (second.returncode, "listens at" in second.stderr)
        service.signal(signal.SIGTERM)
        assert exits.OK == service.wait()
    assert not path.exists()
    path.write_text("a file")
    third = _refused(tmp_path, f"unix://{path}")
    assert (73, "a file") == (third.returncode, path.read_text())


def _refused(directory: Path, listen: str) -> subprocess.CompletedProcess[str]:
    argv = (*COORD, "attrsvc", "--root", str(directory), "--listen", listen)
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, env=clean_environment())


@pytest.mark.parametrize(("action", "enforce", "requested", "observed"), [
    ("STOP", "enforce", True, True), ("STOP", "log", False, True), ("RESTART", "enforce", False, False),
])  # fmt: skip
def test_the_real_client_of_nvrx_has_its_verdicts(
    tmp_path: Path, action: str, enforce: str, requested: bool, observed: bool
) -> None:
    """Its in-job client over TCP, and its monitor's over TCP too: unchanged, from its own wheel."""
    python = os.environ.get("NVRX_PYTHON")
    if not python:
        pytest.skip("NVRX_PYTHON names no Python that imports nvidia-resiliency-ext 0.7 (it wants CPython 3.12)")
    with Attrsvc(tmp_path, "127.0.0.1:0") as service:
        script = Path(__file__).with_name("nvrx_client.py")
        argv = (python, str(script), service.address, str(service.root / "run_cycle0.log"), action, enforce, "")
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        assert 0 == done.returncode, done.stderr
        said = json.loads(done.stdout)
    assert (requested, observed, True) == (said["stop_requested"], said["stop_observed"], said["healthy"])
    submitted, answer = said["monitor"]
    assert (True, action) == (submitted["submitted"], answer["recommendation"]["action"])


def test_the_coordinator_answers_launchers_where_it_is_told_to(tmp_path: Path) -> None:
    """The same flow with an admin's token; nobody else's; and again after the analytics worker was killed."""
    root = tmp_path / "shared"
    root.mkdir()
    log = root / "run_cycle0.log"
    with Head(tmp_path, "--set", f"attribution.launchers_root={root}") as head:
        head.start().close()

        def ask(method: str, route: str, body: Any = None, token: str = "admin") -> tuple[int, Any]:
            connection = _Connection(head.url)
            try:
                headers = {"Authorization": f"Bearer {head.token(token)}", "Content-Type": "application/json"}
                connection.request(method, route, json.dumps(body).encode() if body else None, headers)
                response = connection.getresponse()
                return response.status, json.loads(response.read() or b"null")
            finally:
                connection.close()

        posted = {"log_path": str(log), "analysis_intent": "progressive"}
        assert 403 == ask("POST", "/logs", posted, "join")[0]
        wait_for(lambda: ask("POST", "/logs", posted)[0] == 200, "the desk is there")
        log.write_bytes(STOPS)
        assert 200 == ask("POST", "/logs", posted | {"analysis_intent": "terminal"})[0]
        query = urlencode({"log_path": str(log), "wait": "false"})

        def verdict() -> dict[str, Any] | None:
            status, answer = ask("GET", f"/logs?{query}")
            return answer if status == 200 and answer["status"] == "completed" else None

        answer = wait_for(verdict, "the verdict came")
        assert "run_cycle0.log" in answer["log_file"] and answer["result"]["progressive"]
        outside = ask("GET", f"/logs?{urlencode({'log_path': str(tmp_path / 'x.log')})}")
        assert (403, "outside_root") == (outside[0], outside[1]["error_code"])
        (worker,) = _workers(head.pid)
        os.kill(worker, signal.SIGKILL)

        def again() -> bool:
            return ask("GET", f"/logs?{urlencode({'log_path': str(log)})}")[0] == 200

        wait_for(again, "a new worker answers")


def test_connections_on_which_nothing_is_asked_keep_nobody_out(tmp_path: Path) -> None:
    """Over TCP every user of the machine may open some: of 64 files so many are left that others are answered, now and
    when they are gone."""
    service = Attrsvc(tmp_path, "127.0.0.1:0")
    service.argv = ("sh", "-c", 'ulimit -n 64; exec "$@"', "sh", *service.argv)
    with service:
        host, _, port = service.address.removeprefix("http://").partition(":")
        silent = [socket.create_connection((host, int(port)), 20) for _ in range(100)]
        for one in silent:
            one.sendall(b"GET /healthz HTTP/1.1\r\nHost: ")
        silent[0].close()

        def answered() -> bool:
            try:
                return service.ask("GET", "/healthz")[0] == 200
            except (OSError, http.client.HTTPException):
                return False

        wait_for(answered, "it answers beside them, their time being up")
        for one in silent:
            one.close()
        wait_for(answered, "it answers after them")


def _workers(parent: int) -> list[int]:
    return [
        child.pid
        for child in psutil.Process(parent).children(recursive=True)
        if "analytics.worker" in " ".join(child.cmdline())
    ]
