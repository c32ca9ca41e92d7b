"""A launcher's request, however it came, and the desk's answer to it: fields read, refusals in their one shape."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import msgspec

from analytics.attribution.desk.contract import ErrorCode, Refused, submission
from analytics.attribution.desk.desk import Desk
from coordinator.ports.attribution import LauncherAnswer, LauncherCall

log = logging.getLogger("coord.attribution")
_TRUE, _FALSE = frozenset({"1", "true", "yes", "on", "t", "y"}), frozenset({"0", "false", "no", "off", "f", "n"})


def waits(call: LauncherCall) -> bool:
    """It may take as long as an analysis does."""
    return call.method == "GET" and call.route == "/logs" and call.query.get("wait", "true").lower() not in _FALSE


def carry_out(desk: Desk, call: LauncherCall) -> LauncherAnswer:
    """The answer, whatever happens. Blocks; for any thread."""
    try:
        return LauncherAnswer(status=200, json=msgspec.json.encode(_answer(desk, call)))
    except Refused as refused:
        return refusal(refused)
    except Exception:
        log.exception("a launcher's request failed")
        return refusal(Refused(ErrorCode.INTERNAL_ERROR, "this is a fault of ours; it is in the log"))


def refusal(refused: Refused) -> LauncherAnswer:
    """Its status and body."""
    return LauncherAnswer(status=refused.status, json=msgspec.json.encode(refused.body))


def _answer(desk: Desk, call: LauncherCall) -> object:
    match call.method, call.route:
        case "POST", "/logs":
            return desk.submit(submission(call.body))
        case "GET", "/logs":
            query = call.query
            wait, restart = _flag(query, "wait", True), _count(query, "wl_restart")
            return desk.get(_path(query), wait=wait, file=query.get("file"), wl_restart=restart)
        case "DELETE", "/logs":
            return desk.delete(_path(call.query))
        case "GET", "/stats":
            return desk.stats()
        case "GET", "/jobs":
            return desk.jobs()
        case "GET", "/inflight":
            return desk.inflight()
        case "GET", "/healthz":
            return desk.health()
        case _:
            raise Refused(ErrorCode.NOT_FOUND, "there is no such route")


def _path(query: Mapping[str, str]) -> str:
    path = query.get("log_path", "")
    if not path:
        raise Refused(ErrorCode.UNPROCESSABLE, "log_path is missing")
    return path


def _flag(query: Mapping[str, str], name: str, default: bool) -> bool:
    text = query.get(name)
    if text is None:
        return default
    if text.lower() not in _TRUE | _FALSE:
        raise Refused(ErrorCode.UNPROCESSABLE, f"{name} is true or false")
    return text.lower() in _TRUE


def _count(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise Refused(ErrorCode.UNPROCESSABLE, f"{name} is a whole number from 0")
    return int(text)
