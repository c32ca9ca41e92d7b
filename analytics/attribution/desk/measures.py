"""A desk's figures as Prometheus reads them."""

from __future__ import annotations

from typing import Any

_COUNTS = (
    ("progressive_posts", "coord_attrsvc_progressive_posts_total", "outcome", "Progressive submissions, by outcome."),
    ("progressive_analyses", "coord_attrsvc_progressive_analyses_total", "outcome", "Files followed, by what came."),
    ("fallbacks", "coord_attrsvc_fallbacks_total", "reason", "Full passes in place of a progressive state."),
    ("replays", "coord_attrsvc_replays_total", "reason", "Files read anew from their first byte."),
    ("checks", "coord_attrsvc_checks_total", "outcome", "Verdicts compared with a full pass."),
)
_QUANTILES = (
    ("seconds", "coord_attrsvc_end_seconds", "From a file's end to its verdict, of the last 1,024."),
    ("left_bytes", "coord_attrsvc_left_bytes", "Bytes that were to be read at the end still."),
    ("saved_seconds", "coord_attrsvc_saved_seconds", "Analysis that had been done before the end."),
)


def exposition(figures: dict[str, Any]) -> str:
    """The text of `GET /metrics` for what `Desk.stats` says."""
    lines: list[str] = []

    def metric(name: str, kind: str, words: str) -> None:
        lines.extend((f"# HELP {name} {words}", f"# TYPE {name} {kind}"))

    for field, name, label, words in _COUNTS:
        metric(name, "counter", words)
        lines.extend(f'{name}{{{label}="{key}"}} {value}' for key, value in figures[field].items())
    for field, name, words in _QUANTILES:
        metric(name, "gauge", words)
        found = {key: value for key, value in figures["ends"][field].items() if value is not None}
        lines.extend(f'{name}{{quantile="0.{key[1:]}"}} {value}' for key, value in found.items())
    metric("coord_attrsvc_followed", "gauge", "Files that are followed now.")
    lines.append(f"coord_attrsvc_followed {figures['active']['count']}")
    metric("coord_attrsvc_jobs", "gauge", "Paths that are remembered.")
    lines.append(f"coord_attrsvc_jobs {figures['jobs']}")
    metric("coord_attrsvc_waiting", "gauge", "Analyses that run or wait for a thread.")
    lines.append(f"coord_attrsvc_waiting {figures['waiting']}")
    return "\n".join(lines) + "\n"
