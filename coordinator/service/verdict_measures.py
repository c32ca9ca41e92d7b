"""Metrics of verdicts, and of following the logs that they rest on."""

from __future__ import annotations

from coordinator.ports.attribution import FollowerFigures
from coordinator.service import metrics as m
from coordinator.service.metric_values import Metrics, Source
from coordinator.service.verdicts import Verdicts


def verdicts_source(verdicts: Verdicts) -> Source:
    """What became of the questions, and what the worker says of itself."""

    def ask(metrics: Metrics) -> None:
        counters, following = verdicts.counters, verdicts.following
        metrics.put(m.VERDICTS, counters.given, "given")
        for why, n in counters.none.items():
            metrics.put(m.VERDICTS, n, why)
        metrics.put(m.VERDICTS_WAITING, verdicts.waiting)
        metrics.put(m.VERDICTS_CORRECTED, counters.corrected)
        metrics.put_distribution(m.VERDICT_SECONDS, counters.seconds, counters.seconds_sum)
        _put_following(metrics, following)

    return ask


def _put_following(metrics: Metrics, following: FollowerFigures) -> None:
    metrics.put(m.LOGS_FOLLOWED, following.followed)
    for result in ("started", "completed", "failed", "cancelled", "unsupported"):
        metrics.put(m.FOLLOWS, getattr(following, result), result)
    for reason, n in following.fallbacks.items():
        metrics.put(m.FALLBACKS, n, reason)
    for why, n in following.replays.items():
        metrics.put(m.REPLAYS, n, why)
    metrics.put(m.CHECKS, following.checked - following.divergent, "same")
    metrics.put(m.CHECKS, following.divergent, "different")
    metrics.put(m.FOLLOWED_BYTES, following.read_bytes)
    metrics.put(m.FOLLOW_BUSY, following.busy_s)
    metrics.put(m.FOLLOW_SAVED, following.saved_s)
    if following.left_bytes:
        metrics.put_distribution(m.LEFT_BYTES, following.left_bytes, following.left_bytes_sum)
