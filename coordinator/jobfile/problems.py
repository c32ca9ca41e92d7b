"""Everything that is wrong with a job file, told at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from coordinator.api_types.problems import ProblemPart
from coordinator.core.errors import Code, CoordError

PROBLEMS_MAX = 50
"""More are counted, not kept."""
PAGE = "docs/reference/jobfile.md has every field"


class JobError(CoordError):
    """A job that cannot be taken. `problems` has each thing that is wrong, and where."""

    def __init__(self, problems: Sequence[ProblemPart], more: int = 0) -> None:
        self.problems = tuple(problems)
        said = [f"{part.path}: {part.detail}" if part.path else part.detail for part in problems]
        if more:
            said.append(f"and {more} more")
        if len(said) == 1:
            message, hint = said[0], problems[0].hint or PAGE
        else:
            lines = [f"{text} ({part.hint})" if part.hint else text for text, part in zip(said, problems, strict=False)]
            message = "\n".join(
                [f"{len(problems) + more} things are wrong with this job:", *lines, *said[len(lines) :]]
            )
            hint = PAGE
        super().__init__(Code.BAD_JOB, message, hint)


class Problems:
    """What was found so far. The same one in the defaults of many steps counts once."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], ProblemPart] = {}
        self._more = 0

    def add(self, path: str, detail: str, hint: str = "") -> None:
        """At `path` something is wrong."""
        if (path, detail) in self._found:
            return
        if len(self._found) >= PROBLEMS_MAX:
            self._more += 1
            return
        self._found[path, detail] = ProblemPart(path=path, detail=detail, hint=hint)

    def nearest(self, name: str, known: Iterable[str]) -> str | None:
        """The known name that somebody may have meant, while what is wrong is kept: looking costs a millisecond and
        more, and a file has room for hundreds of thousands of wrong names."""
        return nearest(name, known) if len(self._found) < PROBLEMS_MAX else None

    def __bool__(self) -> bool:
        return bool(self._found)

    def check(self) -> None:
        """JobError when anything was found."""
        if self._found:
            raise JobError(tuple(self._found.values()), self._more)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that somebody may have meant."""
    found = difflib.get_close_matches(name[:64], sorted(known), n=1, cutoff=0.6)
    return found[0] if found else None


def shown(value: object) -> str:
    """What somebody wrote, safe and short enough for a message."""
    match value:
        case str():
            return ascii(value if len(value) <= 60 else value[:60] + "...")
        case bool():
            return "true" if value else "false"
        case int() | float():
            try:
                text = repr(value)
            except ValueError:
                return "a very long number"
            return text if len(text) <= 40 else text[:40] + "..."
        case None:
            return "null"
        case dict():
            return "a table"
        case list() | tuple():
            return "a list"
        case _:
            return f"a {type(value).__name__}"
