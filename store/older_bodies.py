"""Tasks and attempts as versions 3 and 4 of the schema wrote them: JSON objects, which leave out what has its default.

They stay as they are: a task that ended before an upgrade is read like this for as long as its job is kept.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import fields

from coordinator.core.rows import AttemptRow, Choice, TaskRow


def _named(kind: type[msgspec.Struct], **kinds: object) -> type[Any]:
    """The same fields as `kind` has, by their names. `kinds`: fields that are of another kind here."""
    found: list[tuple[str, Any, Any]] = []
    for field in fields(kind):
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        of = kinds.get(field.name, field.type)
        found.append((field.name, of, msgspec.field() if default is msgspec.NODEFAULT else default))
    return msgspec.defstruct(f"Named{kind.__name__}", found, kw_only=True, frozen=True)


_NamedChoice = _named(Choice)
_task = msgspec.json.Decoder(_named(TaskRow))
_attempt = msgspec.json.Decoder(_named(AttemptRow, choice=_NamedChoice | None))


def task(body: str) -> TaskRow:
    """Raises ValueError for what is no task."""
    return TaskRow(**msgspec.structs.asdict(_task.decode(body)))


def attempt(body: str) -> AttemptRow:
    """Raises ValueError for what is no attempt."""
    named = msgspec.structs.asdict(_attempt.decode(body))
    if named["choice"] is not None:
        named["choice"] = Choice(**msgspec.structs.asdict(named["choice"]))
    return AttemptRow(**named)
