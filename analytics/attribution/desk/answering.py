"""What was found, as the answer that launchers read: of one log, of a job's several, and of none yet."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from analytics.attribution.desk import passes, recorder, results
from analytics.attribution.desk.contract import SOURCE, Advice, Answer, ErrorCode, Mode, Refused, Status
from analytics.attribution.desk.jobs import Final, Job
from analytics.attribution.desk.rooted import Root


class Answers:
    """For any thread. `lock` is the desk's, under which jobs change."""

    def __init__(self, root: Root, lock: threading.RLock, patience_s: float) -> None:
        self._root, self._lock, self._patience_s = root, lock, patience_s

    def single(self, job: Job, found: Final | Status, wl_restart: int | None, wait: bool) -> Answer:
        """Of one log. `wl_restart`: of that cycle alone; Refused if there is none. `wait`: a dump may be looked for."""
        if isinstance(found, Status):
            return self._unfinished(job, found, wait)
        verdicts, shown = found.verdicts, found.first + len(found.verdicts) - 1
        if wl_restart is not None:
            if not found.first <= wl_restart < found.first + len(verdicts):
                raise Refused(ErrorCode.INVALID_PARAMETER, f"there is no cycle {wl_restart}")
            verdicts, shown = (verdicts[wl_restart - found.first],), wl_restart
        where, said = self._recorder_of(job, wait)
        more = {"state": "no_log"} if found.key is None else {}
        return Answer(
            result=results.result(
                verdicts, **more, progressive=found.progressive, fallback=found.fallback or None, remark=found.remark
            ),
            status=Status.COMPLETED,
            recommendation=results.merged(verdicts) if verdicts else unknown(found.remark),
            wl_restart=shown if verdicts else 0,
            wl_restart_count=found.first + len(found.verdicts),
            log_file=job.path,
            fr_dump_path=where,
            fr_analysis=said,
        )

    def split(
        self, job: Job, names: Sequence[str], founds: Sequence[Final | Status], wl_restart: int | None, wait: bool
    ) -> Answer:
        """Of the logs that a scheduler's output names, each as far as it is."""
        assert job.paths is not None
        finals = [found for found in founds if isinstance(found, Final)]
        verdicts = [verdict for final in finals for verdict in final.verdicts][-passes.KEPT_MAX :]
        shown = len(verdicts) - 1
        if wl_restart is not None:
            if not 0 <= wl_restart < len(verdicts):
                raise Refused(ErrorCode.INVALID_PARAMETER, f"there is no cycle {wl_restart}")
            verdicts, shown = [verdicts[wl_restart]], wl_restart
        status = next((one for one in founds if isinstance(one, Status)), Status.COMPLETED)
        where, said = self._recorder_of(job, wait)
        return Answer(
            result=results.result(verdicts, files=[name.rpartition("/")[2] for name in names]),
            status=status,
            recommendation=results.merged(verdicts) if verdicts else unknown("there are no logs yet"),
            wl_restart=max(shown, 0),
            wl_restart_count=sum(len(final.verdicts) for final in finals),
            mode=Mode.SPLITLOG,
            sched_restarts=job.paths.starts,
            log_file=names[-1] if names else "",
            fr_dump_path=where,
            fr_analysis=said,
        )

    def _unfinished(self, job: Job, status: Status, wait: bool) -> Answer:
        with self._lock:
            followed = job.followed
            progressive = followed.entry() if followed is not None else None
            failed = job.failed
        advice = unknown({Status.FAILED: failed or "the analysis failed"}.get(status, "there is no verdict yet"))
        if wait and status is Status.IN_FLIGHT:
            reason = f"no verdict within {self._patience_s:.0f} s; it is being made"
            advice = Advice(action="TIMEOUT", source=SOURCE, reason=reason)
        result: dict[str, Any] = {"module": SOURCE, "result": [], "progressive_state": progressive}
        if job.why_not == "capacity" and followed is None:
            result["remark"] = "as many files as may be are followed already; this one is analysed at its end"
        return Answer(result=result, status=status, recommendation=advice, mode=job.mode, log_file=job.path)

    def _recorder_of(self, job: Job, wait: bool) -> tuple[str | None, dict[str, Any] | None]:
        """Found and read by whoever waits, once."""
        if not wait:
            return job.recorder or (None, None)
        with job.recorder_lock:
            if job.recorder is None:
                where = recorder.find(self._root, job.path)
                job.recorder = (where, recorder.analyse(self._root, where) if where is not None else None)
            return job.recorder


def unknown(reason: str) -> Advice:
    """Nothing is advised, and why."""
    return Advice(action="UNKNOWN", source=SOURCE, reason=reason)
