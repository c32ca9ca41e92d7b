"""The story: what happened, in a line each."""

from __future__ import annotations

from collections.abc import Callable

from coordinator.core import commands
from coordinator.core.ids import Ms


class Teller:
    """Says lines, each with the seconds since the world began and whom it is about."""

    def __init__(self, say: Callable[[str], None], elapsed_ms: Callable[[], Ms]) -> None:
        self._say, self._elapsed_ms = say, elapsed_ms

    def log(self, who: str, what: str) -> None:
        self._say(f"{self._elapsed_ms() / 1_000:12.3f} s  {who:<14} {what}")

    def tell(self, note: commands.Note) -> None:
        """What became durable, where it is worth a line."""
        match note:
            case commands.SessionOpened(row=row, resumed=True):
                self.log(row.provider_id, f"session {row.session_id} goes on")
            case commands.SessionOpened(row=row):
                self.log(row.provider_id, f"session {row.session_id} begins ({row.process_id})")
            case commands.SessionEnded(row=row, reason=reason):
                assert row.disconnected_at_ms is not None
                lasted_s = (row.disconnected_at_ms - row.connected_at_ms) / 1_000
                self.log(row.provider_id, f"session {row.session_id} ended: {reason.value} after {lasted_s:.1f} s")
            case commands.ProviderChanged(view=view):
                if view.liveness.value in ("suspect", "lost"):
                    self.log(view.provider_id, f"is {view.liveness.value}")
            case commands.Warned(kind=kind, subject=subject, text=text):
                self.log(subject, f"{kind}: {text}")
            case commands.Audited(row=row) if row.entity in ("job", "task", "attempt"):
                self.log(f"{row.entity} {row.subject}", f"{row.before or 'new'} -> {row.after}" + _because(row.why))
            case _:
                pass


def _because(why: str) -> str:
    return f": {why}" if why else ""
