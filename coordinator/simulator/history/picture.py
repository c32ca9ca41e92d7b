"""A comparison as one picture: what was wasted, how long jobs waited, how much was held when. SVG, needs nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from coordinator.core.amounts import UNIT
from coordinator.core.ids import Ms
from coordinator.simulator.history.books import Books
from coordinator.simulator.history.report import Report
from coordinator.simulator.history.workload import HOUR_MS

COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706")
WIDE, HIGH = 760, 560
LEFT, RIGHT = 70, 20
POINTS_MAX = 240
"""Of a line."""


def drawn(title: str, runs: Sequence[tuple[Report, Books]]) -> str:
    """The picture as SVG text; what is shown is the same for the same runs."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {HIGH}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDE}" height="{HIGH}" fill="white"/>',
        _text(LEFT, 22, title, size=14),
    ]
    reports = [report for report, _ in runs]
    for n, report in enumerate(reports):
        parts.append(_box(LEFT + 120 * n, 34, 10, 10, COLOURS[n % len(COLOURS)]))
        parts.append(_text(LEFT + 120 * n + 15, 43, report.name))
    parts += _wasted(reports, 62)
    parts += _waits(runs, 220)
    parts += _held(runs, 400)
    return "\n".join([*parts, "</svg>", ""])


def page(title: str, runs: Sequence[tuple[Report, Books]]) -> str:
    """The same as a page of its own."""
    return f'<!doctype html>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n{drawn(title, runs)}'


def _wasted(reports: Sequence[Report], top: int) -> list[str]:
    most = max([report.useful_h + report.wasted_h for report in reports] + [1e-9])
    wide = WIDE - LEFT - RIGHT - 150
    parts = [_text(LEFT, top + 10, "CPU hours: useful, and wasted on attempts that died with their machine")]
    for n, report in enumerate(reports):
        y = top + 20 + 28 * n
        useful, wasted = wide * report.useful_h / most, wide * report.wasted_h / most
        parts.append(_box(LEFT, y, useful, 18, COLOURS[n % len(COLOURS)], 0.25))
        parts.append(_box(LEFT + useful, y, wasted, 18, COLOURS[n % len(COLOURS)]))
        said = f"{report.wasted_h:,.0f} h wasted, {100 * report.wasted_share:.1f} %"
        parts.append(_text(LEFT + useful + wasted + 6, y + 13, said))
    return parts


def _waits(runs: Sequence[tuple[Report, Books]], top: int) -> list[str]:
    """Share of jobs that had started within so long; the longest wait at the right edge, by its logarithm."""
    waits = [
        sorted((r.started_ms - r.job.at_ms) / 1_000 for r in books.records.values() if r.started_ms is not None)
        for _, books in runs
    ]
    longest = max([line[-1] for line in waits if line] + [60.0])
    scale = math.log1p(longest)
    high, wide = 120, WIDE - LEFT - RIGHT
    parts = [_text(LEFT, top + 10, "share of jobs that had started within")]
    for seconds, name in ((1, "1 s"), (60, "1 min"), (3_600, "1 h"), (86_400, "1 d")):
        if seconds <= longest:
            x = LEFT + wide * math.log1p(seconds) / scale
            parts.append(_line([(x, top + 18), (x, top + 18 + high)], "#ddd"))
            parts.append(_text(x, top + 32 + high, name))
    for n, line in enumerate(waits):
        points = []
        for at in range(0, len(line), max(1, len(line) // POINTS_MAX)):
            x, y = LEFT + wide * math.log1p(line[at]) / scale, top + 18 + high * (1 - (at + 1) / len(line))
            points.append((x, y))
        if line:
            points.append((LEFT + wide * math.log1p(line[-1]) / scale, float(top + 18)))
        parts.append(_line(points, COLOURS[n % len(COLOURS)]))
    return [*parts, *_axis(top, high, "100 %")]


def _held(runs: Sequence[tuple[Report, Books]], top: int) -> list[str]:
    """CPUs held, mean over equal parts of the time."""
    high, wide = 110, WIDE - LEFT - RIGHT
    first = min((books.steps[0].at_ms for _, books in runs if books.steps), default=0)
    last = max((books.steps[-1].at_ms for _, books in runs if books.steps), default=1)
    lines = [_means(books, first, max(last, first + 1)) for _, books in runs]
    most = max([value for line in lines for value in line] + [1e-9])
    days = (last - first) / (24 * HOUR_MS)
    parts = [_text(LEFT, top + 10, f"CPUs held, over {days:.1f} days")]
    for n, line in enumerate(lines):
        points = [
            (LEFT + wide * (at + 0.5) / len(line), top + 18 + high * (1 - value / most))
            for at, value in enumerate(line)
        ]
        parts.append(_line(points, COLOURS[n % len(COLOURS)]))
    return [*parts, *_axis(top, high, f"{most:,.0f}")]


def _means(books: Books, first: Ms, last: Ms) -> list[float]:
    size = (last - first) / POINTS_MAX
    sums = [0.0] * POINTS_MAX
    held, since = 0, float(first)
    for at_ms, change in [*((step.at_ms, step.cpus) for step in books.steps), (last, 0)]:
        while held and since < at_ms:
            part = min(int((since - first) / size), POINTS_MAX - 1)
            until = at_ms if part == POINTS_MAX - 1 else min(at_ms, first + (part + 1) * size)
            if until <= since:
                break
            sums[part] += held * (until - since)
            since = until
        held, since = held + change, at_ms
    return [value / size / UNIT for value in sums]


def _axis(top: int, high: int, most: str) -> list[str]:
    return [
        _line([(LEFT, top + 18), (LEFT, top + 18 + high), (WIDE - RIGHT, top + 18 + high)], "#888"),
        _text(LEFT - 6, top + 28, most, anchor="end"),
        _text(LEFT - 6, top + 18 + high, "0", anchor="end"),
    ]


def _text(x: float, y: float, text: str, *, size: int = 12, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}">{escape(text)}</text>'


def _box(x: float, y: float, wide: float, high: float, colour: str, opacity: float = 1.0) -> str:
    size = f'x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{high:.1f}"'
    return f'<rect {size} fill="{colour}" fill-opacity="{opacity}"/>'


def _line(points: Sequence[tuple[float, float]], colour: str) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
