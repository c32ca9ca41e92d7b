"""One table says what follows each close; the page of the wire says the same."""

from __future__ import annotations

import pytest

from coordinator.agent.closing import Then, on_close, on_http_status
from coordinator.core.commands import CloseCode

STOPS = {CloseCode.UNAUTHENTICATED, CloseCode.MACHINE_MISMATCH, CloseCode.FORGOTTEN, CloseCode.VERSION}
LATER = {CloseCode.BAD_FRAME, CloseCode.DUPLICATE, CloseCode.SUPERSEDED, CloseCode.TOO_FAST}


@pytest.mark.parametrize("code", CloseCode)
def test_every_close_code_has_its_consequence(code: CloseCode) -> None:
    """Stop, later, or retry; a stop names an exit status and what to do."""
    ended = on_close(code, "why")
    expected = Then.STOP if code in STOPS else Then.LATER if code in LATER else Then.RETRY
    assert ended.then is expected
    assert str(int(code)) in ended.why
    assert (ended.exit_code != 0 and bool(ended.hint)) is (expected is Then.STOP)


@pytest.mark.parametrize(
    ("code", "then"),
    [(1000, Then.RETRY), (1006, Then.RETRY), (1009, Then.RETRY), (1013, Then.LATER), (4999, Then.LATER)],
)
def test_unknown_close_codes_never_stop_an_agent(code: int, then: Then) -> None:
    """A code of a later version, or of WebSocket itself, is followed by another try."""
    assert on_close(code, "").then is then


@pytest.mark.parametrize(
    ("status", "then"),
    [
        (401, Then.STOP),
        (403, Then.LATER),
        (404, Then.LATER),
        (429, Then.LATER),
        (408, Then.RETRY),
        (500, Then.RETRY),
        (503, Then.RETRY),
    ],
)
def test_a_refused_upgrade_stops_only_for_a_refused_credential(status: int, then: Then) -> None:
    """Anything but 401 may be a proxy, a restart or a wrong name, and passes."""
    assert on_http_status(status, "").then is then
