"""The outer levels of an OTLP message: which spans there are, as bytes. What is in them is not looked at.

63 MiB of empty spans are 33 million: as OpenTelemetry's own messages they cost 14 s before the first could be refused,
and several GiB. As bytes their number is known at once, and each is decoded when it is its turn.
"""

from __future__ import annotations

from functools import cache
from typing import Any

NAMES = ("Groups", "Group", "Scope")
"""TracesData, ResourceSpans and ScopeSpans: of each the fields 1 and 2, where there are some, as they came."""


@cache
def groups() -> tuple[Any, Any, Any]:
    """Classes of the three; each has `one` and `two`, sequences of bytes. Needs no generated code."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    bytes_, repeated = (
        descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
        descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED,
    )
    file = descriptor_pb2.FileDescriptorProto(name="coord/otlp_groups.proto", package="coord", syntax="proto3")
    for name in NAMES:
        message = file.message_type.add(name=name)
        for number, field in ((1, "one"), (2, "two")):
            message.field.add(name=field, number=number, type=bytes_, label=repeated)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = [message_factory.GetMessageClass(pool.FindMessageTypeByName(f"coord.{name}")) for name in NAMES]
    return found[0], found[1], found[2]
