"""The lease clock: from which moment a term is counted. Everything is CLOCK_BOOTTIME, which counts suspend.

The coordinator counts a term from the receipt of a heartbeat, we from before it was sent: our end of it is always
the earlier one, whatever the network did in between.
"""

from __future__ import annotations

from coordinator import wire

REMEMBERED_MAX = 256
"""Heartbeats whose send time is known. At the default interval that is 21 minutes."""


class LeaseClock:
    """Send times of one connection after the other, and what follows from them."""

    def __init__(self) -> None:
        self._sent: dict[int, float] = {}
        self._heard_s = 0.0
        self.renewed_seq = 0
        """Of the last renewal that arrived, on any connection of this daemon."""

    def hello_sent(self, at_s: float) -> None:
        """A new connection begins: what was sent on the one before renews nothing any more."""
        self._sent = {0: at_s}
        self._heard_s = at_s

    def beat_sent(self, seq: int, at_s: float) -> None:
        """`at_s` was before the first byte of it left."""
        self._sent[seq] = at_s
        if len(self._sent) > REMEMBERED_MAX:
            del self._sent[next(iter(self._sent))]

    def acked(self, seq: int) -> None:
        """The coordinator received this heartbeat."""
        self._heard_s = max(self._heard_s, self._sent.get(seq, self._heard_s))

    def heard_s(self) -> float:
        """From when the term of a fresh grant is counted: the last acknowledged heartbeat, else the hello."""
        return self._heard_s

    def renewed(self, seq: int) -> float | None:
        """A renewal by this heartbeat arrived: from when its terms are counted. None: it was not sent on this
        connection, or too long ago to be known, so that nothing may be counted from it."""
        sent_s = self._sent.get(seq)
        if sent_s is not None:
            self.renewed_seq = max(self.renewed_seq, seq)
        return sent_s


def freeze_at_s(counted_from_s: float, term_s: float) -> float:
    """When an attempt is to be frozen whose lease has this term from that moment on."""
    return counted_from_s + wire.FREEZE_SHARE * term_s
