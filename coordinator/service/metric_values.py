"""What the metrics stand at, and as Prometheus text (version 0.0.4).

Values are added to where things happen, or read from their owners when somebody asks (measures.py). Used from the
loop's thread alone. Series of a metric are bounded; what would be beyond is folded into `other`.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from coordinator.service.metrics import Metric, table

OTHER = "other"
Source = Callable[["Metrics"], None]
Labels = tuple[str, ...]


@dataclass(slots=True)
class _Distribution:
    counts: list[int]
    total: float = 0.0
    n: int = 0


@dataclass(slots=True)
class _Series:
    values: dict[Labels, float] = field(default_factory=dict)
    distributions: dict[Labels, _Distribution] = field(default_factory=dict)


class Metrics:
    """The values. `render` first asks every source for what it counts itself."""

    def __init__(self) -> None:
        self._series: dict[str, _Series] = {metric.name: _Series() for metric in table()}
        self._sources: list[Source] = []
        for metric in table():
            if metric.kind == "counter" and not metric.labels:
                self._series[metric.name].values[()] = 0.0

    def source(self, ask: Source) -> None:
        """Have `ask` called before each rendering."""
        self._sources.append(ask)

    def add(self, metric: Metric, amount: float, *labels: str) -> None:
        """Raise a counter."""
        assert metric.kind == "counter" and amount >= 0
        values = self._series[metric.name].values
        before = values.get(labels)
        if before is not None:
            values[labels] = before + amount
            return
        key = self._bounded(metric, labels, values)
        values[key] = values.get(key, 0.0) + amount

    def put(self, metric: Metric, value: float, *labels: str) -> None:
        """Set a gauge, or a counter that its owner keeps."""
        assert metric.kind != "histogram"
        values = self._series[metric.name].values
        values[self._bounded(metric, labels, values)] = value

    def clear(self, metric: Metric) -> None:
        """Drop a gauge's series: what it speaks of is not there any more."""
        self._series[metric.name].values.clear()

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Count `value` into a histogram."""
        assert metric.kind == "histogram"
        distributions = self._series[metric.name].distributions
        key = self._bounded(metric, labels, distributions)
        found = distributions.get(key)
        if found is None:
            found = distributions[key] = _Distribution([0] * (len(metric.bounds) + 1))
        found.counts[bisect_left(metric.bounds, value)] += 1
        found.total += value
        found.n += 1

    def put_distribution(self, metric: Metric, counts: Sequence[int], total: float) -> None:
        """Set a histogram that its owner keeps: counts by bound, and one for what lies beyond."""
        assert metric.kind == "histogram" and len(counts) == len(metric.bounds) + 1
        self._series[metric.name].distributions[()] = _Distribution(list(counts), total, sum(counts))

    def value(self, metric: Metric, *labels: str) -> float:
        """What a counter or gauge stands at; of a histogram how many were counted. 0 before the first."""
        series = self._series[metric.name]
        if metric.kind == "histogram":
            found = series.distributions.get(labels)
            return found.n if found is not None else 0
        return series.values.get(labels, 0.0)

    def collect(self) -> None:
        """Ask every source."""
        for ask in self._sources:
            ask(self)

    def render(self) -> bytes:
        """The text exposition."""
        self.collect()
        lines: list[str] = []
        for metric in table():
            lines.append(f"# HELP {metric.name} {metric.help}")
            lines.append(f"# TYPE {metric.name} {metric.kind}")
            series = self._series[metric.name]
            if metric.kind == "histogram":
                for labels, found in series.distributions.items():
                    _render_distribution(lines, metric, labels, found)
            else:
                lines.extend(
                    f"{metric.name}{_braces(metric.labels, labels)} {_number(value)}"
                    for labels, value in series.values.items()
                )
        return ("\n".join(lines) + "\n").encode()

    def _bounded(
        self, metric: Metric, labels: Labels, present: dict[Labels, float] | dict[Labels, _Distribution]
    ) -> Labels:
        assert len(labels) == len(metric.labels), f"{metric.name} has the labels {metric.labels}"
        if labels in present or len(present) < metric.series_max:
            return labels
        return tuple(OTHER for _ in labels)


def _render_distribution(lines: list[str], metric: Metric, labels: Labels, found: _Distribution) -> None:
    below = 0
    for bound, count in zip((*metric.bounds, math.inf), found.counts, strict=True):
        below += count
        braces = _braces((*metric.labels, "le"), (*labels, _number(bound)))
        lines.append(f"{metric.name}_bucket{braces} {below}")
    braces = _braces(metric.labels, labels)
    lines.append(f"{metric.name}_sum{braces} {_number(found.total)}")
    lines.append(f"{metric.name}_count{braces} {found.n}")


def _braces(names: Labels, values: Labels) -> str:
    if not names:
        return ""
    inside = ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True))
    return "{" + inside + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if float(value).is_integer() and abs(value) < 2**53 else repr(float(value))
