"""Run by a Python that has nvidia-resiliency-ext: its own in-job client and its monitor's, against the given service.

    python nvrx_client.py URL LOG STOP|RESTART enforce|log UNIX_SOCKET

Imports nothing of ours. Prints what the clients made of the answers, as one line of JSON.
"""

from __future__ import annotations

import json
import pathlib
import sys
import time
from typing import Any

from nvidia_resiliency_ext.services.smonsvc.attrsvc_client import AttrsvcClient  # type: ignore[import-not-found]
from nvidia_resiliency_ext.shared_utils.health_check import AttributionService  # type: ignore[import-not-found]


def main() -> None:
    url, path, action, enforce, socket = sys.argv[1:6]
    log = pathlib.Path(path)
    service = AttributionService(url, enforce_stop=enforce == "enforce")
    service.start_poller()
    service._submit_log(path)  # at the start of a cycle, before there is a log
    last = "lost license server\n" if action == "RESTART" else "ValueError: unknown optimizer flux\n"
    for line in ("step 1\n", "step 2\n", last):
        with log.open("a") as file:
            file.write(line)
    service.request_terminal_analysis()
    until = time.monotonic() + 20
    while service._terminal_pending and not service.stop_verdict_observed() and time.monotonic() < until:
        time.sleep(0.05)
    service.stop_poller()
    monitor: list[Any] = []
    client = AttrsvcClient(f"unix://{socket}" if socket else url, request_throttle=0.0)
    client.request_with_retry("POST", "77", path, lambda reply: monitor.append(reply.json()), monitor.append)
    client.request_with_retry("GET", "77", path, lambda reply: monitor.append(reply.json()), monitor.append)
    said = {
        "stop_requested": service.stop_requested(),
        "stop_observed": service.stop_verdict_observed(),
        "pending": service._terminal_pending,
        "healthy": client.check_health_cached(),
        "monitor": monitor,
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main()
