"""Many threads ask one desk about files that grow, go away and come again: it answers, and nothing is left behind."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

import pytest

from analytics.attribution.desk import passes
from analytics.attribution.desk.contract import Answer, Refused, Status, Submission
from analytics.attribution.desk.desk import Desk
from analytics.attribution.desk.rooted import Root
from analytics.attribution.desk.settings import DeskSettings
from analytics.attribution.following.places import Places
from tests.unit.analytics.desk.service import RESTARTS, STOPS, WELL, rules

FILES, THREADS, TURNS = 6, 8, 60
INTENTS = ("progressive", "progressive", "terminal", "track_only")


def test_whatever_is_asked_at_once_it_answers_and_gives_every_place_back(tmp_path: Path) -> None:
    """More files than places, one analysis at a time, every verdict checked: no error but the contract's own, no state
    that is lost, and no place that is taken when all are released."""
    places = Places(4)
    settings = DeskSettings(poll_s=0.001, threads=1, check_one_in=1, waiting_max=4, patience_s=20.0)
    desk = Desk(Root(tmp_path), rules(), settings, places)
    desk.start()
    logs = [tmp_path / f"run_{n}_cycle{n}.log" for n in range(FILES)]
    wrong: list[BaseException] = []
    codes: set[str] = set()

    def one(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(TURNS):
            log = dice.choice(logs)
            try:
                match dice.randrange(8):
                    case 0 | 1:
                        with log.open("ab") as file:
                            file.write(dice.choice((WELL, WELL, RESTARTS, STOPS)))
                    case 2:
                        log.unlink(missing_ok=True)
                    case 3:
                        log.write_bytes(WELL)
                    case 4 | 5:
                        desk.submit(Submission(log_path=str(log), analysis_intent=dice.choice(INTENTS)))
                    case 6:
                        answer = desk.get(str(log), wait=dice.random() < 0.5)
                        assert isinstance(answer, Answer) and answer.status is not Status.FAILED
                    case _:
                        desk.delete(str(log))
            except Refused as refused:
                codes.add(refused.body.error_code)
            except BaseException as error:
                wrong.append(error)

    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "somebody waits for ever"
    assert [] == wrong
    assert codes <= {"not_found", "empty_file", "unavailable"}
    for log in logs:
        log.write_bytes(STOPS)
        assert "STOP" == desk.get(str(log), wait=True).recommendation.action
        desk.delete(str(log))
    figures = desk.stats()
    desk.close()
    assert (0, 0, 0) == (places.taken, figures["active"]["count"], figures["checks"]["divergent"])
    assert figures["progressive_analyses"]["started"] == figures["progressive_analyses"]["cancelled"]


def test_a_file_without_an_end_does_not_keep_it_from_closing(tmp_path: Path) -> None:
    """Four terabytes of nothing, in a file of no size on disk; they are being read when it is told to close."""
    log = tmp_path / "run.log"
    log.touch()
    os.truncate(log, 1 << 42)
    desk = Desk(Root(tmp_path), rules(), DeskSettings())
    desk.start()
    asker = threading.Thread(target=lambda: desk.get(str(log)))
    asker.start()
    until = time.monotonic() + 30.0
    while not desk.inflight()["count"] and time.monotonic() < until:
        time.sleep(0.01)
    assert desk.inflight()["count"]
    closer = threading.Thread(target=desk.close, daemon=True)
    closer.start()
    closer.join(30.0)
    assert not closer.is_alive()
    asker.join(30.0)


def test_of_a_file_without_an_end_so_much_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the verdict says so."""
    monkeypatch.setattr(passes, "WHOLE_BYTES_MAX", passes.READ_BYTES)
    log = tmp_path / "run.log"
    log.write_bytes(STOPS)
    os.truncate(log, 1 << 40)
    passed = passes.by_cycles(lambda: os.open(log, os.O_RDONLY), rules())
    assert f"only its first {passes.READ_BYTES} bytes were read" == passed.remark
    assert "config_error" == passed.verdicts[-1].cause
