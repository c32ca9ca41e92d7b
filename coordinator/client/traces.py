"""Traces of jobs through the API: rows as they are kept, what an analysis says, and rows as data frames."""

from __future__ import annotations

import http.client
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from coordinator.client.requests import Requests, with_query
from coordinator.core.errors import Code, CoordError

if TYPE_CHECKING:
    import polars

    from coordinator.api_types.trace import Profile
    from coordinator.api_types.trace_comparison import Comparison, WhatIf

KINDS = ("spans", "assets", "lineage")
LINES = "application/x-ndjson"
ANALYSIS_S = 300.0
"""How long an analysis may take."""
SILENCE_S = 60.0
_PIECE = 256 * 1024


class Traces:
    """A tenant's own jobs; those who may see every job see every trace."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    def lines(self, job: int, kind: str = "spans") -> Iterator[bytes]:
        """Everything of one of KINDS, a line of JSON each, without its end; CoordError(UNREACHABLE) when it breaks off:
        a part is never taken for the whole."""
        if kind not in KINDS:
            raise CoordError(Code.BAD_REQUEST, f"a trace has no {kind[:40]!a}", f"there are: {', '.join(KINDS)}")
        rest = b""
        with self._requests.transport.reading(f"/v1/traces/workflows/{job}/{kind}", LINES, SILENCE_S) as response:
            try:
                while piece := response.read1(_PIECE):
                    *whole, rest = (rest + piece).split(b"\n")
                    yield from whole
            except (OSError, http.client.HTTPException) as error:
                raise CoordError(
                    Code.UNREACHABLE, f"the {kind} of job {job} broke off: {error}", "fetch them again"
                ) from error
        if rest:
            yield rest

    def fetch(self, job: int, kind: str = "spans") -> Iterator[dict[str, Any]]:
        """The same, decoded: spans as OpenTelemetry's ReadableSpan prints them."""
        decode = msgspec.json.Decoder(dict[str, Any]).decode
        return map(decode, self.lines(job, kind))

    def analyze(self, job: int, *, rows: int | None = None) -> Profile:
        """Where the time of a job went; one that goes on is analysed until now. Of tables that have a row a task the
        `rows` most important ones are in it (0: all; None: as many as the coordinator gives); `left_out` counts the
        rest."""
        from coordinator.api_types.trace import Profile

        return self._requests.get(_analysis(job), Profile, {"rows": rows}, timeout_s=ANALYSIS_S)

    def compare(self, job: int, other: int) -> Comparison:
        """`job` beside `other`, the one before it."""
        from coordinator.api_types.trace_comparison import Comparison

        return self._requests.get(_analysis(job), Comparison, {"other": other}, timeout_s=ANALYSIS_S)

    def what_if(self, job: int, *, slots: int | None = None, without: Sequence[str] = ()) -> WhatIf:
        """How long it had taken with so many slots, or if these tasks (`12.0.3`) cost nothing."""
        from coordinator.api_types.trace_comparison import WhatIf

        query = {"slots": slots, "without": ",".join(without) or None}
        return self._requests.get(_analysis(job), WhatIf, query, timeout_s=ANALYSIS_S)

    def page(self, job: int) -> bytes:
        """The analysis as one HTML page that needs nothing else."""
        transport = self._requests.transport
        target = with_query(_analysis(job), {"format": "html"})
        return transport.send("GET", target, None, 0, "", ANALYSIS_S)

    def frame(self, job: int, kind: str = "spans") -> polars.DataFrame:
        """The rows as a polars DataFrame; of spans one column for what most ask of, attributes as JSON beside them.
        Needs the extra `frames`: CoordError(BAD_CONFIG) without it."""
        try:
            from coordinator.client import frames
        except ImportError as error:
            raise CoordError(
                Code.BAD_CONFIG, "data frames need polars, which is not installed", "pip install 'coord[frames]'"
            ) from error
        return frames.frame(kind, self.fetch(job, kind))


def _analysis(job: int) -> str:
    return f"/v1/traces/workflows/analyze/{job}"
