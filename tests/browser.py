"""A headless Chromium to open pages in, driven over its DevTools protocol. Skips where none is installed."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome", "headless_shell")
STARTED_S = 30.0
ANSWER_S = 30.0


class Page:
    """One page. What its script complains of and what it asks of the network is kept."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0
        self.faults: list[str] = []
        self.requests: list[str] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command and its answer."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        until = time.monotonic() + ANSWER_S
        while True:
            message = json.loads(self._socket.recv(timeout=max(0.0, until - time.monotonic())))
            if message.get("id") == self._number:
                assert "error" not in message, message["error"]
                result: dict[str, Any] = message["result"]
                return result
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.faults.append(json.dumps(message["params"]["exceptionDetails"]))
            case "Log.entryAdded" if message["params"]["entry"]["level"] in ("error", "warning"):
                self.faults.append(message["params"]["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])

    def open(self, url: str, ready: str) -> None:
        """Go there, and wait until the expression `ready` is true."""
        self.call("Page.navigate", url=url)
        until = time.monotonic() + ANSWER_S
        while not self.value(ready):
            assert time.monotonic() < until, f"{ready} never came true: {self.faults}"
            time.sleep(0.02)

    def authorize(self, token: str) -> None:
        """Send it along from now on."""
        self.call("Network.setExtraHTTPHeaders", headers={"Authorization": f"Bearer {token}"})

    def value(self, expression: str) -> Any:
        """What JavaScript makes of it, as JSON; a promise is awaited."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def screenshot(self, to: Path) -> bytes:
        data = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        to.write_bytes(data)
        return data


@contextmanager
def browser(place: Path, *, width: int = 1400, height: int = 1000) -> Iterator[Page]:
    """An empty page of a browser of its own, which is gone afterwards."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium is installed here")
    profile = place / "browser"
    process = subprocess.Popen(
        [program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0",
         f"--user-data-dir={profile}", f"--window-size={width},{height}", "about:blank"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{_port(profile, process)}/json/list", timeout=ANSWER_S
        ) as listed:
            (page, *_) = [entry for entry in json.load(listed) if entry["type"] == "page"]
        with connect(page["webSocketDebuggerUrl"], max_size=1 << 28) as socket:
            yield Page(socket)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=ANSWER_S)


def _port(profile: Path, process: subprocess.Popen[bytes]) -> int:
    until = time.monotonic() + STARTED_S
    told = profile / "DevToolsActivePort"
    while not told.is_file() or not told.read_text().strip():
        assert process.poll() is None and time.monotonic() < until, "the browser does not start"
        time.sleep(0.02)
    return int(told.read_text().split()[0])
