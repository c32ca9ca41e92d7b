"""Launchers' routes in the coordinator: off unless asked for, an admin's alone, handed on as they are."""

from __future__ import annotations

import json

from coordinator.ports.attribution import LauncherAnswer, LauncherCall
from coordinator.service.api.route import ADMINS
from coordinator.service.api.routes.launchers import launcher_routes
from tests.unit.api.rig import Rig, served


class Desk:
    """Remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[LauncherCall] = []

    async def launcher(self, call: LauncherCall) -> LauncherAnswer:
        self.calls.append(call)
        return LauncherAnswer(status=422, json=b'{"error_code":"unprocessable"}')


def test_they_are_off_by_default() -> None:
    """404 for an admin, with what to set."""

    async def story(rig: Rig) -> None:
        for route in launcher_routes():
            got = await rig.ask(route.method, route.path, json={} if route.method == "POST" else None)
            problem = json.loads(got.body)
            assert (404, "not_found") == (got.status, problem["code"]) and "launchers_root" in problem["hint"]

    served(story)


def test_they_are_an_admins_alone() -> None:
    """They read files of the head."""
    assert {ADMINS} == {route.roles for route in launcher_routes()}


def test_a_request_is_handed_on_and_its_answer_handed_back() -> None:
    """Query, body with fields of the future, status and JSON: nothing is looked at on the way."""
    desk = Desk()

    async def story(rig: Rig) -> None:
        body = {"log_path": "/x", "cycle_id": True, "color": "blue"}
        got = await rig.post("/logs", body)
        assert (422, b'{"error_code":"unprocessable"}') == (got.status, got.body)
        await rig.get("/logs?log_path=%2Fx&wait=false")
        await rig.ask("DELETE", "/logs?log_path=%2Fx")
        await rig.get("/inflight")
        assert body == json.loads(desk.calls[0].body)
        assert [
            ("POST", "/logs", {}),
            ("GET", "/logs", {"log_path": "/x", "wait": "false"}),
            ("DELETE", "/logs", {"log_path": "/x"}),
            ("GET", "/inflight", {}),
        ] == [(call.method, call.route, call.query) for call in desk.calls]

    served(story, launchers=desk)
