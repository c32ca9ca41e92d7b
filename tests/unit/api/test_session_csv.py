"""Imported history: what is taken, and that every bad row is named by its line."""

from __future__ import annotations

import gzip
import io
import lzma
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.core.errors import Code, CoordError
from coordinator.core.rows import EndReason
from coordinator.ports.store import ImportedSession
from coordinator.service.api.session_csv import REPORTED_MAX, Limits, parse_sessions

NOW_MS = 1_800_000_000_000
HEADER = "provider_id,connected_at,disconnected_at,disconnect_reason\n"
LIMITS = Limits(bytes_max=10_000_000, rows_max=10_000, now_ms=NOW_MS)


def parsed(text: str | bytes, limits: Limits = LIMITS) -> list[ImportedSession]:
    return parse_sessions(io.BytesIO(text.encode() if isinstance(text, str) else text), limits)


def refused(text: str | bytes, limits: Limits = LIMITS) -> CoordError:
    with pytest.raises(CoordError) as caught:
        parsed(text, limits)
    return caught.value


def test_all_ways_to_write_a_time_mean_the_same() -> None:
    """Unix seconds, with a fraction, ISO 8601 with Z or an offset; an empty end is open; an empty reason is
    read_error; spaces, CRLF, blank lines, a byte order mark and another order of columns do not matter."""
    rows = parsed(
        "\ufeffdisconnect_reason,provider_id,connected_at,disconnected_at\r\n"
        "read_error,a,1547399272,1547405552\r\n"
        "\r\n"
        ",b,1547399272.25, 2019-01-13T18:52:32Z\r\n"
        'clean_close,"c",2019-01-13T19:07:52+02:00,2019-01-13T18:52:32.5+00:00\r\n'
        ",d,1547399272,"
    )
    assert [
        ImportedSession(2, "a", 1547399272_000, 1547405552_000, EndReason.READ_ERROR),
        ImportedSession(4, "b", 1547399272_250, 1547405552_000, EndReason.READ_ERROR),
        ImportedSession(5, "c", 1547399272_000, 1547405552_500, EndReason.CLEAN_CLOSE),
        ImportedSession(6, "d", 1547399272_000, None, None),
    ] == rows


BAD_ROWS = [
    ("a,1547399272", "has 2 fields, not 4"),
    ("a,1,2,read_error,x", "has 5 fields, not 4"),
    (",1,2,", "no name"),
    ("a b,1,2,", "no name"),
    ("../x,1,2,", "no name"),
    ("reliability,1,2,", "word of the API"),
    ("a,,2,", "connected_at"),
    ("a,x,2,", "neither Unix seconds nor ISO 8601"),
    ("a,2019-01-13T18:52:32,,", "no time zone"),
    ("a,nan,,", "neither"),
    ("a,-5,,", "1970"),
    ("a,2,1,", "before it begins"),
    ("a,1,2,gone", "there are: clean_close, draining, read_error"),
    ("a,1,,read_error", "no end"),
    ("a,1800000301,,", "future"),
    ("a,1547399272000,,", "Unix times are in seconds"),
]


@pytest.mark.parametrize(("row", "said"), BAD_ROWS)
def test_a_bad_row_is_named_by_its_line_and_its_fault(row: str, said: str) -> None:
    """One bad row among good ones refuses the file and says which and why."""
    error = refused(f"{HEADER}ok,1,2,read_error\n{row}\nok,3,4,\n")
    assert Code.BAD_IMPORT is error.code
    assert "1 of 3 rows" in error.message and "\nline 3: " in error.message and said in error.message


def test_all_bad_rows_are_counted_and_the_first_are_shown() -> None:
    """25 bad rows of 30: the count, the first 20 with their lines, and how many more."""
    text = HEADER + "ok,1,2,\n" * 5 + "bad,2,1,\n" * 25
    message = refused(text).message
    assert message.startswith("25 of 30 rows") and message.endswith("and 5 more")
    lines = [part for part in message.splitlines() if part.startswith("line ")]
    assert REPORTED_MAX == len(lines) and lines[0].startswith("line 7: ") and lines[-1].startswith("line 26: ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("\n" + HEADER, "empty"),
        ("00137a704c,1547399272,1547405552,read_error\n", "is no column"),
        ("provider,connected_at,disconnected_at,disconnect_reason\n", "did you mean provider_id?"),
        ("provider_id,connected_at,disconnected_at\n", "column disconnect_reason is missing"),
        ("provider_id,provider_id,connected_at,disconnected_at,disconnect_reason\n", "stands there twice"),
        (b"\xff\xfe" + HEADER.encode("utf-16-le"), "UTF-8"),
    ],
)
def test_a_wrong_header_says_what_the_first_line_should_be(text: str | bytes, said: str) -> None:
    """The header is required; the refusal names the column at fault."""
    error = refused(text)
    assert Code.BAD_IMPORT is error.code and said in error.message


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress, lambda b: gzip.compress(b) + gzip.compress(b"")])
def test_packed_files_are_recognised_by_their_content(pack) -> None:  # type: ignore[no-untyped-def]
    """Plain, gzip (also of several members) and xz give the same rows."""
    text = HEADER + "".join(f"p{i % 7},{i},{i + 1},\n" for i in range(5_000))
    assert parsed(text) == parsed(pack(text.encode()))


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_a_truncated_or_damaged_packed_file_is_refused(pack) -> None:  # type: ignore[no-untyped-def]
    """Half a file is no file, and neither is one with a flipped byte."""
    whole = pack((HEADER + "a,1,2,\n" * 5_000).encode())
    assert "unpacked" in refused(whole[: len(whole) // 2]).message
    damaged = bytearray(whole)
    damaged[len(damaged) // 2] ^= 0xFF
    assert Code.BAD_IMPORT is refused(bytes(damaged)).code


@pytest.mark.parametrize(("rows_before", "line"), [(0, 2), (3, 5), (9_000, 9_002)])
def test_what_is_no_text_is_named_by_its_line(rows_before: int, line: int) -> None:
    """Wherever in the file it stands, also beyond the first piece that is read."""
    text = (HEADER + f"{'a' * 60},1,2,\n" * rows_before).encode() + b"caf\xe9,1,2,\n" + b"a,1,2,\n" * 5
    assert f"line {line} is not UTF-8" in refused(text).message
    assert f"line {line} is not UTF-8" in refused((HEADER + "a,1,2,\n" * rows_before).encode() + b"\xe9").message


def test_a_row_that_cannot_be_read_is_one_of_the_rows() -> None:
    """The count is of rows looked at, in words that fit it."""
    assert refused(HEADER + 'a,"1,2,\n').message.startswith("1 of 1 row cannot be imported")


def test_bombs_stop_at_the_bound() -> None:
    """What unpacks beyond the bound is refused when it gets there, not afterwards; so are rows and long lines."""
    small = Limits(bytes_max=100_000, rows_max=100, now_ms=NOW_MS)
    for pack in (gzip.compress, lzma.compress):
        assert Code.TOO_LARGE is refused(pack(HEADER.encode() + b"\n" * 50_000_000), small).code
    assert Code.TOO_LARGE is refused(HEADER + "a,1,2,\n" * 101, small).code
    assert "longer than" in refused(HEADER + "a" * 90_000, small).message


def test_an_xz_file_that_demands_much_memory_is_refused() -> None:
    """The dictionary that a stream announces is bounded, too."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 512 * 1024 * 1024}]
    with io.BytesIO() as out:
        packer = lzma.LZMACompressor(lzma.FORMAT_XZ, filters=filters)
        try:
            out.write(packer.compress(HEADER.encode()) + packer.flush())
        except MemoryError:
            pytest.skip("this machine cannot make such a file")
        assert Code.BAD_IMPORT is refused(out.getvalue()).code


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400))
def test_no_bytes_make_it_fail_otherwise(data: bytes) -> None:
    """Whatever is sent is taken, or refused as a CoordError."""
    for body in (data, HEADER.encode() + data, zlib.compress(data), gzip.compress(data)):
        try:
            parsed(body)
        except CoordError as error:
            assert error.code in (Code.BAD_IMPORT, Code.TOO_LARGE)
