"""Streams of lines: taken in by blocks; a block that has anything unusual is taken in by line, and bad lines are
named."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, BinaryIO

import msgspec

from analytics.traces.reading import otlp_json, readable, relations
from analytics.traces.reading.reading import Intake

BLOCK_BYTES = 1 << 18
"""Small enough that what a block is decoded into stays in a core's own cache: of 2 MiB a million spans take half as
long again (11.2 s of CPU, of 256 KiB 7.6, on a busy machine)."""
LINE_BYTES_MAX = 64 << 20
"""A line that is longer is left out, unread."""
PIECE_LINES = 64
"""A block with something unusual is taken in by so many lines; a piece with something unusual, by line."""

_decode = msgspec.json.Decoder().decode
_PIECE = re.compile(rb"(?:[^\n]*\n){1,%d}|[^\n]+\Z" % PIECE_LINES)
_BAD = (ValueError, OverflowError, RecursionError, msgspec.DecodeError)


def kind_of(row: Mapping[str, Any]) -> str:
    """Which row a decoded line is: `spans`, `otlp_json`, `assets`, `lineage`, or nothing."""
    if "resourceSpans" in row:
        return "otlp_json"
    if "context" in row:
        return "spans"
    if "asset_guid" in row:
        return "assets"
    return "lineage" if "source_data_id" in row else ""


def take_stream(intake: Intake, stream: BinaryIO, source: str, kind: str) -> None:
    """Take in every line to the end. `kind` is what most of them are; others that may stand beside it are taken too."""
    rest = bytearray()  # of a line whose end has not come: added to, never copied
    line = 1
    while block := stream.read(BLOCK_BYTES):
        if intake.gave_up:
            left = rest.count(b"\n") + block.count(b"\n")
            while block := stream.read(BLOCK_BYTES):
                left += block.count(b"\n")
            intake.leave(source, line, left)
            return
        cut = block.rfind(b"\n") + 1
        if not cut:
            rest += block
            if len(rest) > LINE_BYTES_MAX:
                rest = bytearray(_skip(intake, stream, source, line))
                line += 1
            continue
        line += _take_block(intake, bytes(rest) + block[:cut] if rest else block[:cut], source, line, kind)
        rest = bytearray(block[cut:])
    if rest:
        _take_block(intake, bytes(rest), source, line, kind)


def _skip(intake: Intake, stream: BinaryIO, source: str, line: int) -> bytes:
    """Leave a line out that is too long; what was read of the next one."""
    intake.reject(source, line, f"the line is longer than {LINE_BYTES_MAX} bytes")
    while block := stream.read(BLOCK_BYTES):
        if b"\n" in block:
            return block[block.index(b"\n") + 1 :]
    return b""


def _take_block(intake: Intake, block: bytes, source: str, line: int, kind: str) -> int:
    """How many lines there were."""
    take = {"spans": readable.take_block, "assets": relations.take_assets, "lineage": relations.take_lineage}.get(kind)
    lines = block.count(b"\n")
    if take is None or (kind == "spans" and intake.builder.details):
        _take_lines(intake, block, source, line, kind)
        return lines
    try:
        take(intake, block)
        return lines
    except _BAD:
        pass
    for piece in _PIECE.findall(block):
        try:
            take(intake, piece)
        except _BAD:
            _take_lines(intake, piece, source, line, kind)
        line += piece.count(b"\n")
    return lines


def _take_lines(intake: Intake, block: bytes, source: str, line: int, kind: str) -> None:
    for number, text in enumerate(block.split(b"\n"), line):
        if not text.strip():
            continue
        try:
            row = _decode(text)
            if not isinstance(row, dict):
                raise ValueError("it is no JSON object")
            which = kind_of(row)
            if which == "otlp_json" and kind in ("spans", "otlp_json"):
                otlp_json.take_document(intake, text, source, number)
            elif which == "spans" and kind in ("spans", "otlp_json"):
                intake.check()
                intake.add(readable.span_of(row, intake.builder.details))
            elif which == "assets" == kind:
                relations.take_assets(intake, text)
            elif which == "lineage" == kind:
                relations.take_lineage(intake, text)
            else:
                raise ValueError(f"it is no row of {'spans' if kind == 'otlp_json' else kind}")
        except _BAD as error:
            intake.reject(source, number, str(error) or type(error).__name__)
