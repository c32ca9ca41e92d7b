"""The desk: takes files to follow, gives verdicts on them. Any thread may ask; nothing of a file leaves but a verdict.

A POST starts at most work that goes on beside it, and never has a result. What a GET may wait for is made once, however
many wait. What is followed, remembered and waited for is bounded; what is beyond is analysed at its end, makes room,
or is refused.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from typing import Any

from msgspec.structs import replace

from analytics.attribution.desk import recorder, splitlog
from analytics.attribution.desk.answering import Answers
from analytics.attribution.desk.contract import (
    Answer,
    ErrorCode,
    Intent,
    Mode,
    Refused,
    Released,
    Status,
    Submission,
    Submitted,
)
from analytics.attribution.desk.followed import Followed
from analytics.attribution.desk.jobs import Final, Job, listed
from analytics.attribution.desk.making import Maker
from analytics.attribution.desk.registry import Registry
from analytics.attribution.desk.rooted import Root
from analytics.attribution.desk.settings import DeskSettings
from analytics.attribution.desk.tally import Tally
from analytics.attribution.desk.workshop import Workshop
from analytics.attribution.engine import Rules
from analytics.attribution.following.places import Places

log = logging.getLogger("coord.attribution")
BUSY_BYTES = 1 << 20
"""Of a turn through all files: after more than this the next one comes at once."""
PAUSE_S = 0.1
"""After less: lines are looked at in handfuls, not one by one."""


class Desk:
    """`start` begins to follow, `close` ends it."""

    def __init__(
        self,
        root: Root,
        rules: Rules,
        settings: DeskSettings,
        places: Places | None = None,
        registry: Registry | None = None,
    ) -> None:
        """`registry`: what is submitted outlives this desk; closed with it."""
        self.settings = settings
        self._registry = registry
        self.tally = Tally()
        self._root = root
        self._rules = rules
        self._places = places if places is not None else Places(settings.active_max)
        self._jobs: dict[str, Job] = {}
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._closing = threading.Event()
        self._maker = Maker(root, rules, settings, self.tally, self._closing)
        self._workshop = Workshop(self._maker, settings, self._lock, self._jobs)
        self._answers = Answers(root, self._lock, settings.patience_s)
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="follow-files", daemon=True)

    def start(self) -> None:
        if self._registry is not None:
            self._take_up(self._registry)
        self._thread.start()

    def _take_up(self, registry: Registry) -> None:
        """What was submitted before: followed again, or judged again, as many as may wait; the newest first."""
        for asked in registry.submissions():
            try:
                self._submit(asked)
            except Refused as refused:
                log.warning("%s is not taken up again: %s", asked.log_path, refused.body.message)

    def close(self) -> None:
        """End the threads; what was under way is dropped."""
        self._closing.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self._workshop.close()
        with self._lock:
            for job in self._jobs.values():
                self._let_go(job.release())
        if self._registry is not None:
            self._registry.close()

    # ---- POST

    def submit(self, asked: Submission) -> Submitted:
        """Remember it, and start what its intent says. Refused: see docs/reference/attribution-http.md."""
        submitted = self._submit(asked)
        if self._registry is not None:
            self._registry.note(replace(asked, log_path=submitted.normalized_path))
        return submitted

    def _submit(self, asked: Submission) -> Submitted:
        progressive = False
        try:
            intent = Intent.of(asked.analysis_intent)
            progressive = intent is Intent.PROGRESSIVE
            real = self._root.place(asked.log_path)
            there = self._root.status(real) is not None
            with self._lock:
                job = self._register(real, asked)
                self._carry_out(job, intent)
        except Refused:
            if progressive:
                self.tally.post("rejected")
            raise
        if intent is Intent.TRACK_ONLY and asked.job_id and not self._is_its_own_log(job):
            self._look_for_split(job, there)
        return self._submitted(job)

    def _is_its_own_log(self, job: Job) -> bool:
        """Somebody had this very file followed or judged: it is no list of where the logs are."""
        with self._lock:
            return job.followed is not None or job.over or (job.mode is Mode.SINGLE and job.answered is not None)

    def _carry_out(self, job: Job, intent: Intent) -> None:
        if intent is Intent.TRACK_ONLY:
            return
        if self.settings.progressive == "off":
            job.why_not = "disabled"
            if intent is Intent.PROGRESSIVE:
                self.tally.post("ignored")
            return
        if intent is Intent.TERMINAL:
            job.over = True
            if job.making is None and not self._is_current(job, job.final or job.answered):
                self._workshop.begin(job)
            return
        self.tally.post("accepted")
        if job.over:  # the path is used again, for another run
            job.over, job.final, job.answered, job.failed, job.recorder = False, None, None, "", None
        if job.followed is None:
            self._start_following(job)

    def _start_following(self, job: Job) -> None:
        if not self._places.take():
            job.why_not = "capacity"
            return
        job.followed = Followed(self._maker.opener(job.path), self._rules, job.name, f"p{next(self._numbers)}")
        self.tally.analysis("started")
        self._wake.set()

    def _register(self, real: str, asked: Submission | None) -> Job:
        job = self._jobs.get(real)
        if job is None:
            self._make_room()
            job = self._jobs[real] = Job(real, "missing")
        job.touched_s = time.monotonic()
        if asked is not None:
            self._identify(job, asked)
        return job

    def _identify(self, job: Job, asked: Submission) -> None:
        job_id = (asked.job_id or "").strip() or None
        for name, old, new in (("job_id", job.job_id, job_id), ("cycle_id", job.cycle_id, asked.cycle_id)):
            if old is not None and new is not None and old != new:
                raise Refused(ErrorCode.INVALID_PARAMETER, f"the path is known with another {name}", {name: old})
        job.job_id = job_id if job_id is not None else job.job_id
        if asked.cycle_id is not None:
            job.cycle_id = asked.cycle_id
        if asked.user and job.user == "unknown":
            job.user = asked.user

    def _make_room(self) -> None:
        if len(self._jobs) < self.settings.jobs_max:
            return
        idle = [job for job in self._jobs.values() if job.followed is None and job.making is None]
        if not idle:
            raise Refused(ErrorCode.JOB_LIMIT_REACHED, f"{len(self._jobs)} files are worked on already")
        del self._jobs[min(idle, key=lambda job: job.touched_s).path]

    def _submitted(self, job: Job) -> Submitted:
        with self._lock:
            parts = [one for one in self._jobs.values() if one.part_of == job.path and one.answered is not None]
            return Submitted(
                submitted=True,
                normalized_path=job.path,
                mode=job.mode,
                logs_dir=job.paths.logs_dir if job.paths is not None else None,
                sched_restarts=job.paths.starts if job.paths is not None else 0,
                files_analyzed=len(parts) + (job.answered is not None and job.mode is Mode.SINGLE),
            )

    # ---- GET

    def get(self, path: str, *, wait: bool = True, file: str | None = None, wl_restart: int | None = None) -> Answer:
        """The verdict, or how far it is. `wait=False` never starts anything."""
        real = self._root.place(path)
        with self._lock:
            job = self._jobs.get(real)
            if job is not None:
                job.touched_s = time.monotonic()
                if job.followed is not None:
                    job.followed.touched_s = job.touched_s
        if job is None:
            if not wait:
                raise Refused(ErrorCode.NOT_FOUND, "the path was never submitted")
            if self._root.status(real) is None:
                raise Refused(ErrorCode.NOT_FOUND, "there is no such file")
            with self._lock:
                job = self._register(real, None)
        if job.mode is not Mode.SINGLE and wait:
            self._look_for_split(job, True, settle=True)
        if job.mode is Mode.SPLITLOG:
            return self._get_split(job, wait, file, wl_restart)
        if file is not None:
            raise Refused(ErrorCode.INVALID_PARAMETER, "file= picks one of split logs, and these are not split")
        found = self._final_of(job, wait, self.settings.patience_s)
        return self._answers.single(job, found, wl_restart, wait)

    def _final_of(self, job: Job, wait: bool, patience_s: float) -> Final | Status:
        """What was found; without `wait`, or when patience has run out, how far it is."""
        with self._lock:
            known = job.answered or job.final
            if not wait:
                if known is None:
                    return Status.FAILED if job.failed else Status.IN_FLIGHT if job.making else Status.PENDING
                job.answered = known
                self._completed(job)
                return known
            if job.making is None:
                if known is not None and self._is_current(job, known):
                    job.answered = known
                    self._completed(job)
                    return known
                self._check_content(job)
                self._workshop.begin(job)
            making = job.making
            assert making is not None
        try:
            found = making.result(patience_s)
        except TimeoutError:
            return Status.IN_FLIGHT
        except Exception:
            return Status.FAILED  # told where it happened
        with self._lock:
            found = job.answered = job.final or found  # it may have been corrected before we heard of it
            self._completed(job)
        return found

    def _check_content(self, job: Job) -> None:
        """An empty file is no log yet; at a run's end it is one that says nothing."""
        status = self._root.status(job.path)
        if status is not None and status.st_size == 0 and not job.over:
            raise Refused(ErrorCode.EMPTY_FILE, "the file is empty")

    def _completed(self, job: Job) -> None:
        if job.followed is not None:
            job.followed.completed = True

    def _is_current(self, job: Job, final: Final | None) -> bool:
        return final is not None and final.key == self._maker.key(job.path)

    def whole(self, path: str) -> Answer:
        """A full pass, whatever is followed or known of the path; nothing of it is remembered."""
        real = self._root.place(path)
        status = self._root.status(real)
        if status is None:
            raise Refused(ErrorCode.NOT_FOUND, "there is no such file")
        if not status.st_size:
            raise Refused(ErrorCode.EMPTY_FILE, "the file is empty")
        aside = Job(real, "")
        return self._answers.single(aside, self._maker.from_the_whole(aside, (), ""), None, wait=True)

    def progress(self, path: str) -> dict[str, Any] | None:
        """How far a followed file is read; None: it is not followed."""
        with self._lock:
            job = self._jobs.get(self._root.place(path))
            return job.followed.entry() if job is not None and job.followed is not None else None

    def recorded(self, where: str) -> dict[str, Any]:
        """What the flight recorder's dumps say at a directory, a prefix or a file."""
        found = recorder.analyse(self._root, self._root.place(where))
        if found is None:
            raise Refused(ErrorCode.NOT_FOUND, "there is no dump that can be read")
        return found

    # ---- split logs

    def _look_for_split(self, job: Job, there: bool, settle: bool = False) -> None:
        """Read on in a scheduler's output. `settle`: what names no directory by now is a log itself."""
        paths = job.paths if job.paths is not None else splitlog.Paths()
        whole = False
        if there:
            try:
                whole = paths.scan(self._root, job.path)
            except OSError:
                whole = settle
        with self._lock:
            job.paths = paths
            if paths.logs_dir is not None:
                job.mode = Mode.SPLITLOG
            elif settle and whole:
                job.mode = Mode.SINGLE
            elif job.mode is not Mode.SPLITLOG:
                job.mode = Mode.PENDING

    def _get_split(self, job: Job, wait: bool, file: str | None, wl_restart: int | None) -> Answer:
        assert job.paths is not None and job.paths.logs_dir is not None
        names = splitlog.files_of(self._root, job.paths.logs_dir, job.job_id or "")
        if file is not None:
            names = [name for name in names if name.rpartition("/")[2] == file]
            if not names:
                raise Refused(ErrorCode.NOT_FOUND, "no such file among the job's logs")
        until_s = time.monotonic() + self.settings.patience_s
        founds = [self._part(job, name, wait, until_s) for name in names]
        return self._answers.split(job, names, founds, wl_restart, wait)

    def _part(self, job: Job, real: str, wait: bool, until_s: float) -> Final | Status:
        """One of several logs. An empty one says nothing yet."""
        with self._lock:
            part = self._jobs.get(real)
            if part is None:
                if not wait:
                    return Status.PENDING
                part = self._register(real, None)
                part.part_of = job.path
        try:
            return self._final_of(part, wait, max(0.0, until_s - time.monotonic()))
        except Refused as refused:
            if refused.body.error_code in (ErrorCode.EMPTY_FILE, ErrorCode.NOT_FOUND, ErrorCode.NOT_READABLE):
                return Final((), 0, None, False, "missing", refused.body.message)
            raise

    # ---- DELETE, and what is seen of it all

    def delete(self, path: str) -> Released:
        """Follow it no longer. Refused(NOT_FOUND) for what was never submitted."""
        real = self._root.place(path)
        with self._lock:
            job = self._jobs.get(real)
            if job is None:
                raise Refused(ErrorCode.NOT_FOUND, "the path was never submitted")
            followed = job.release()
            if followed is not None:
                self.tally.analysis("cancelled")
        self._let_go(followed)
        if self._registry is not None:
            self._registry.forget(real)
        return Released(released=followed is not None, normalized_path=real)

    def _let_go(self, followed: Followed | None) -> None:
        if followed is not None:
            followed.close()
            self._places.free()

    def jobs(self) -> dict[str, Any]:
        """`GET /jobs`: what was submitted, and how far it is."""
        with self._lock:
            entries = [listed(job) for job in self._jobs.values() if not job.part_of]
        return {"count": len(entries), "entries": sorted(entries, key=lambda entry: str(entry["log_path"]))}

    def inflight(self) -> dict[str, Any]:
        """`GET /inflight`: what a verdict is being made of."""
        with self._lock:
            paths = sorted(job.path for job in self._jobs.values() if job.making is not None)
        return {"count": len(paths), "paths": paths}

    def stats(self) -> dict[str, Any]:
        """`GET /stats`."""
        with self._lock:
            active = [{"log_path": job.path, **job.followed.entry()} for job in self._jobs.values() if job.followed]
            known = len(self._jobs)
            waiting = self._workshop.waiting
        return {
            "policy": self.settings.progressive,
            "jobs": known,
            "waiting": waiting,
            "active": {"count": len(active), "limit": self._places.count, "entries": active},
            **self.tally.figures(),
        }

    def health(self) -> dict[str, Any]:
        """`GET /healthz`."""
        issues = [] if self._thread.is_alive() else ["files are not followed"]
        return {"status": "ok" if not issues else "fail", "issues": issues}

    # ---- following

    def _follow(self) -> None:
        while not self._closing.is_set():
            with self._lock:
                turn = [(job, job.followed) for job in self._jobs.values() if job.followed is not None]
            taken = 0
            for job, followed in turn:
                taken += self._look(job, followed)
                if self._closing.is_set():
                    return
            if taken < BUSY_BYTES:  # else there may be more already
                self._wake.wait(min(PAUSE_S, self.settings.poll_s) if taken else self.settings.poll_s)
                self._wake.clear()

    def _look(self, job: Job, followed: Followed) -> int:
        """-> new bytes."""
        if not followed.lock.acquire(blocking=False):
            return 0
        try:
            before = followed.tracker.replays.copy()
            taken = followed.read()
            for why in followed.tracker.replays - before:
                self.tally.replay(why)
        finally:
            followed.lock.release()
        if not taken and time.monotonic() - followed.touched_s > self.settings.idle_s:
            with self._lock:
                gone = job.release() if job.followed is followed and job.making is None else None
            if gone is not None:
                self.tally.analysis("cancelled")
                self._let_go(gone)
        return taken
