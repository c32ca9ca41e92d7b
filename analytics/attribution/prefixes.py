"""What launchers and loggers put before a line: ranks, hosts, times. They go, and what they say is kept."""

from __future__ import annotations

import re

from msgspec import Struct

from analytics.attribution.times import FORMS, Clock, read

NESTED_MAX = 8
LOOKED_AT_BYTES = 256
_COLOURS = re.compile(rb"\x1b\[[0-9;?]{0,16}[A-Za-z]")
_LOG_STREAM = re.compile(rb"(?:stdout|stderr) [FP] ")
_WRAPPER = b'{"log":"'
_WRAPPED = re.compile(rb'\{"log":"(?P<log>(?:[^"\\]|\\.){0,16000}?)(?:\\r)?(?:\\n)?"(?:,"stream":"\w{1,8}")?')
_ESCAPES = re.compile(rb"\\(u[0-9a-fA-F]{4}|.)")
_PLAIN = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"b": b"", b"f": b""}
# Each begins a line, says who wrote it, and is tried again on what is left.
_WHO = re.compile(
    rb"""
      \[(?:rank[ ]?|default|Rank[ ]?)?(?P<a>\d{1,5})\](?:<std(?:out|err)>)?:?[ ]?   # [rank3]: [default3]: [3]<stderr>:
    | \[\d{1,6},(?:mpirank:)?(?P<b>\d{1,5})(?:,[\w.-]{1,40})?\]<std(?:out|err|diag)>:?[ ]?       # mpirun --tag-output
    | \[[A-Za-z][\w.-]{0,24}?(?P<e>\d{1,5})\]:[ ]?                                # [trainer3]: of a role of torchrun
    | \[(?P<host1>[A-Za-z][\w.-]{0,63}):(?:(?P<c>\d{1,3})|\d{4,9})\][ ]?          # [host1:0], [host1:48213]: a process
    | [ ]?(?P<d>\d{1,5}):[ ]                                                      # srun --label
    | [ ]{2,12}From[ ]worker[ ](?P<f>\d{1,5}):\t                                  # Julia
    | \((?:[A-Za-z_][^()=,]{0,63}[ ,]{1,2})?(?:pid|rank)=\d{1,9}(?:,[ ]ip=(?P<host2>[\w.:-]{1,64}))?\)[ ]?    # Ray
    | (?P<host3>(?:\d{1,3}\.){3}\d{1,3}|(?!(?:python|pip|cc)\d)[a-z][a-z0-9]*(?:-[a-z0-9]+)*-?\d{1,6}):[ ]
    | (?P<host4>[a-z][\w.-]{0,60}\d)[ ]{1,16}\|[ ]                                # docker compose
    """,
    re.VERBOSE,
)
_RANKS = ("a", "b", "c", "d", "e", "f")
_HOSTS = ("host1", "host2", "host3", "host4")
_TIMES = [re.compile(rb"[\[|(]?(?:[IWEFD] ?)?%s(?: ?[])|:,-])?(?: -)? ?" % form) for form in FORMS]
_SYSLOG = re.compile(rb"(?P<host>[\w.-]{1,64}) [\w./()-]{1,40}(?:\[\d{1,9}\])?: |kernel: ")
_LEVEL = re.compile(
    rb"(?:[\w.]{1,64} - )?\[?(?:TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|CRITICAL|FATAL)\]?(?: ?[|:-] | )",
    re.IGNORECASE,
)
_PLACE = re.compile(
    rb"(?:\[|[IWEFD] |\d{1,9} )?[\w./<>+-]{1,100}:\d{1,6}(?::[\w.<>]{1,64})?\]:? ?"
    rb"|\{[\w./-]{1,80}:\d{1,6}\} "
    rb"|\[tid \d{1,9}\] |[\w.<>]{1,64}:[\w<>]{1,64}:\d{1,6} - "
)
_LOGGED_AS = re.compile(
    rb"(?:^|[^\w.])(?:(?P<mild>WARN(?:ING)?|INFO|NOTE|NOTICE|DEBUG|TRACE|warning)|(?P<grave>ERROR|CRITICAL|FATAL|SEVERE))"
    rb"(?=[]|:)* \t]|$)"
    rb"|(?:^|[]>: ])\[?(?:(?P<mild_sign>[IWD])|[EF]) ?\d{2}-?\d{2}[ :]"
)
_LEVEL_BYTES = 128
_QUOTED = re.compile(rb"> |\* ")
_SAYS_RANK = re.compile(rb"\[(?:[^\]\n]{0,80} )?[Rr]ank (\d{1,5})\]")


class Stripped(Struct, frozen=True, gc=False):
    """`text` is what is left of the line."""

    text: bytes
    who: bytes
    """All that the prefixes say of who wrote it: lines of one writer follow each other."""
    rank: int | None
    host: bytes
    clock: Clock
    at_ms: int


def is_mild(line: bytes) -> bool:
    """Whether a logger calls the line, with its prefixes, a warning or less. NCCL calls so what it dies of."""
    found = _LOGGED_AS.search(line, 0, _LEVEL_BYTES)
    if found is None or b"NCCL" in line[:_LEVEL_BYTES]:
        return False
    return found["mild"] is not None or found["mild_sign"] is not None


def rewrites(line: bytes) -> bool:
    """Whether what strip leaves may be no part of the line: colours go, and what was written as JSON is read."""
    return b"\x1b" in line or line.startswith(_WRAPPER)


def strip(line: bytes) -> Stripped:
    """Without prefixes, nested ones too. The innermost rank counts; where none is before, one that the line names."""
    if b"\x1b" in line:
        line = _COLOURS.sub(b"", line)
    if line.startswith(_WRAPPER) and (wrapped := _WRAPPED.match(line)) is not None:
        line = _ESCAPES.sub(_unescaped, wrapped["log"])
    rank: int | None = None
    host = who = b""
    clock, at_ms = Clock.NONE, 0
    for _ in range(NESTED_MAX):
        if (found := _WHO.match(line, 0, LOOKED_AT_BYTES)) is not None:
            rank = next((int(number) for number in found.group(*_RANKS) if number is not None), rank)
            host = next((name for name in found.group(*_HOSTS) if name is not None), host)
            who += found.group().strip()
        elif clock is Clock.NONE and (timed := _timed(line)) is not None:
            found = timed
            clock, at_ms = read(timed)
            line = line[found.end() :]
            if (after := _SYSLOG.match(line, 0, LOOKED_AT_BYTES)) is not None:
                host = after["host"] or host
                line = line[after.end() :]
            continue
        elif (found := _other(line, told=clock is not Clock.NONE)) is None:
            break
        line = line[found.end() :]
    if rank is None and (said := _SAYS_RANK.search(line, 0, LOOKED_AT_BYTES)) is not None:
        rank = int(said[1])
    return Stripped(line, who, rank, host, clock, at_ms)


def _timed(line: bytes) -> re.Match[bytes] | None:
    for pattern in _TIMES:
        if (found := pattern.match(line, 0, LOOKED_AT_BYTES)) is not None:
            return found
    return None


def _other(line: bytes, told: bool) -> re.Match[bytes] | None:
    """A level and a place in the source only behind a time: alone they may be all that a line says."""
    if (found := _QUOTED.match(line)) is not None:
        return found
    if not told:
        return None
    return _LOG_STREAM.match(line) or _LEVEL.match(line, 0, LOOKED_AT_BYTES) or _PLACE.match(line, 0, LOOKED_AT_BYTES)


def _unescaped(found: re.Match[bytes]) -> bytes:
    sign = found[1]
    if sign.startswith(b"u") and len(sign) == 5:
        return chr(int(sign[1:], 16)).encode("utf-8", "replace")
    return _PLAIN.get(sign, sign)
