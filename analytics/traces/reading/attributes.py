"""What attributes say of a span: which task, which attempt, on which provider. One table of names for all formats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from analytics.traces.building import SpanRow
from analytics.traces.columns import CANCELLED, LOST, NONE, UNFINISHED

TEXT_MAX = 1_024
"""Characters of a name or an id."""
DETAILS_BYTES_MAX = 256 * 1024
"""Of all attributes, events and links of a span together."""
ATTRIBUTES_MAX = 1_024
DEPTH_MAX = 16
"""Of lists and maps within an attribute."""
ATTEMPT_MAX = 2**31 - 1
KIND_MAX = 5
"""OpenTelemetry's highest kind of a span."""

PROVIDER_NAMES = ("worker.id", "cicd.worker.id", "coord.provider")
"""The first that is there names the provider; none: the resource's, then its host."""
LABEL_NAMES = ("cicd.pipeline.task.name", "coord.step")
KEY_NAME, SLOT_NAME = "coord.key", "coord.slot"
ATTEMPT_NAMES = ("attempt", "coord.attempt")
RESULT_NAMES = ("coord.outcome", "cicd.pipeline.task.run.result")
CLOCK_NAMES = ("coord.clock.offset_ns", "coord.clock.bound_ns")
"""Of a resource: the coordinator's clock less this one, and how far that may be off."""
_FLAGS = {"cancelled": CANCELLED, "cancellation": CANCELLED, "lost": LOST}

_encode = msgspec.json.Encoder().encode


def flags_of(*results: object) -> int:
    """CANCELLED or LOST, as one of the results says."""
    return next((_FLAGS[text] for text in results if isinstance(text, str) and text in _FLAGS), 0)


def text_of(value: Any, what: str) -> str | None:
    """A name or an id; numbers are written as text. ValueError when it is longer than any is."""
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"{what} is no text")
    text = str(value)
    if len(text) > TEXT_MAX:
        raise ValueError(f"{what} is longer than {TEXT_MAX} characters")
    return text


def whole_of(value: Any, what: str, most: int) -> int:
    """A whole number from 0 to `most`, also where it is written as text; ValueError otherwise."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{what} is no whole number") from None
    if isinstance(value, float) and value != number:
        raise ValueError(f"{what} is no whole number")
    if not 0 <= number <= most:
        raise ValueError(f"{what} is not between 0 and {most}")
    return number


def id_of(text: Any, what: str, digits: int) -> str:
    """Hex digits of an id, without 0x; ValueError for anything else."""
    if not isinstance(text, str):
        raise ValueError(f"{what} is no text")
    bare = text.removeprefix("0x").lower()
    if not 0 < len(bare) <= digits or not set(bare) <= _HEX:
        raise ValueError(f"{what} is not {digits} hex digits")
    return bare.zfill(digits)


def span_kind(number: int) -> int:
    """OpenTelemetry's number for a span's kind; 0 for one that it has not."""
    return number if 0 <= number <= KIND_MAX else 0


_HEX = frozenset("0123456789abcdef")


def clock_of(resource: Mapping[str, Any]) -> tuple[int, int] | None:
    """(offset, bound) of an agent's clock, in nanoseconds, where its resource has them."""
    offset, bound = (resource.get(name) for name in CLOCK_NAMES)
    if not isinstance(offset, int) or not isinstance(bound, int):
        return None
    return (offset, bound) if abs(offset) < 2**62 and 0 <= bound < 2**62 else None


def span_row(
    *,
    trace: str,
    span: int,
    parent: int,
    name: Any,
    start_ns: int,
    end_ns: int,
    status: str,
    attributes: Mapping[str, Any],
    resource: Mapping[str, Any],
    details: dict[str, Any] | None,
) -> SpanRow:
    """A row, checked; ValueError says what is wrong with it. `details` is what is beside the attributes."""
    if not span:
        raise ValueError("span_id is zero")
    if not int(trace, 16):
        raise ValueError("trace_id is zero")
    if end_ns != UNFINISHED and end_ns < start_ns:
        raise ValueError("it ends before it starts")
    if len(attributes) > ATTRIBUTES_MAX:
        raise ValueError(f"it has more than {ATTRIBUTES_MAX} attributes")

    def get(key: str) -> Any:
        """What a program's environment says of all its spans stands in the resource."""
        return attributes[key] if key in attributes else resource.get(key)

    provider = next((get(key) for key in PROVIDER_NAMES if get(key)), None)
    if not provider:
        provider = resource.get("host.name")
    kept = b"{}"
    if details is not None:
        kept = _encode({"attributes": attributes, **details})
        if len(kept) > DETAILS_BYTES_MAX:
            raise ValueError(f"its attributes and events are larger than {DETAILS_BYTES_MAX} bytes")
    attempt = next((get(key) for key in ATTEMPT_NAMES if get(key) is not None), 0)
    slot = get(SLOT_NAME)
    return SpanRow(
        trace=trace,
        span=span,
        parent=parent,
        name=text_of(name, "name") or "",
        start_ns=start_ns,
        end_ns=end_ns,
        data_id=text_of(get("data_id"), "data_id"),
        batch_id=text_of(get("batch_id"), "batch_id"),
        source_data_id=text_of(get("source_data_id"), "source_data_id"),
        provider=text_of(provider, "the provider"),
        slot=whole_of(slot, SLOT_NAME, ATTEMPT_MAX) if slot is not None else NONE,
        attempt=whole_of(attempt, "attempt", ATTEMPT_MAX),
        label=text_of(next((get(key) for key in LABEL_NAMES if get(key)), None), "the task's name"),
        key=text_of(get(KEY_NAME), KEY_NAME),
        kind=text_of(get("flowmesh.type"), "flowmesh.type"),
        status=status,
        flags=flags_of(*(get(key) for key in RESULT_NAMES)),
        clock=clock_of(resource),
        workflow_id=text_of(get("workflow_id"), "workflow_id"),
        details=kept,
    )
