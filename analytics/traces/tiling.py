"""A stretch of time laid out with segments, from its end back to its start, without gap or overlap."""

from __future__ import annotations

from coordinator.api_types.trace import PathStep, RealCriticalPath, Segment, SegmentKind


class Tiling:
    """Segments are laid before those that are there. What lies outside of what is left is cut off, so their lengths sum
    to the whole, exactly, whatever times are given."""

    def __init__(self, start_ns: int, end_ns: int) -> None:
        self.start_ns, self.end_ns = start_ns, end_ns
        self.cursor = end_ns
        """All behind it is laid out."""
        self._segments: list[Segment] = []
        self._steps: list[PathStep] = []

    def lay(
        self,
        from_ns: int,
        kind: SegmentKind,
        task: str = "",
        attempt: int = 0,
        provider: str = "",
        cause: str = "",
        inferred: bool = False,
    ) -> None:
        """One from `from_ns` to the cursor, which moves there. Nothing of it is left: nothing is laid."""
        begin = max(from_ns, self.start_ns)
        if begin >= self.cursor:
            return
        self._segments.append(
            Segment(
                start_ns=begin,
                end_ns=self.cursor,
                kind=kind,
                task=task,
                attempt=attempt,
                provider=provider,
                cause=cause,
                inferred=inferred,
            )
        )
        self.cursor = begin

    def step(self, task: str, attempt: int, cause: str, from_task: str | None, inferred: bool) -> None:
        self._steps.append(PathStep(task=task, attempt=attempt, cause=cause, from_task=from_task, inferred=inferred))

    def finish(self, finished: bool) -> RealCriticalPath:
        """What is left in front is unknown."""
        self.lay(self.start_ns, SegmentKind.UNKNOWN)
        segments = tuple(reversed(self._segments))
        by_kind: dict[str, int] = {}
        for segment in segments:
            by_kind[segment.kind.value] = by_kind.get(segment.kind.value, 0) + segment.end_ns - segment.start_ns
        makespan_ns = self.end_ns - self.start_ns
        return RealCriticalPath(
            makespan_seconds=makespan_ns / 1e9,
            makespan_ns=makespan_ns,
            start_ns=self.start_ns,
            end_ns=self.end_ns,
            segments=segments,
            steps=tuple(reversed(self._steps)),
            by_kind=by_kind,
            finished=finished,
        )
