"""OTLP/JSON's attribute values: a list of keys and tagged values, 64-bit integers as text. Unknown fields are
ignored."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from analytics.traces.reading.attributes import DEPTH_MAX


class AnyValue(Struct, gc=False, frozen=True):
    """One of the fields is set; none: the value is null."""

    stringValue: str | None = None
    boolValue: bool | None = None
    intValue: int | str | None = None
    doubleValue: float | str | None = None
    arrayValue: ArrayValue | None = None
    kvlistValue: KeyValues | None = None
    bytesValue: str | None = None


class KeyValue(Struct, gc=False, frozen=True):
    key: str = ""
    value: AnyValue | None = None


class ArrayValue(Struct, gc=False, frozen=True):
    values: list[AnyValue] | None = None


class KeyValues(Struct, gc=False, frozen=True):
    values: list[KeyValue] | None = None


def attributes_of(pairs: list[KeyValue] | None, depth: int = 0) -> dict[str, Any]:
    """Keys with their plain values; ValueError for a number that is none, and where they are nested too deep."""
    return {pair.key: value_of(pair.value, depth) for pair in pairs} if pairs else {}


def value_of(value: AnyValue | None, depth: int) -> Any:
    if value is None:
        return None
    if value.stringValue is not None:
        return value.stringValue
    if value.intValue is not None:
        return int(value.intValue)
    if value.boolValue is not None:
        return value.boolValue
    if value.doubleValue is not None:
        return float(value.doubleValue)
    if value.bytesValue is not None:
        return value.bytesValue
    if depth >= DEPTH_MAX:
        raise ValueError(f"its attributes are nested more than {DEPTH_MAX} deep")
    if value.arrayValue is not None:
        return [value_of(inner, depth + 1) for inner in value.arrayValue.values or ()]
    if value.kvlistValue is not None:
        return attributes_of(value.kvlistValue.values, depth + 1)
    return None
