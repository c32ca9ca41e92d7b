"""Attempts that verdicts save: labelled failures as jobs with a budget of three retries, through the core's own rules.

    python -m bench.retries_saved [--logs DIR] [--quick]

Each failure of a folder of labelled logs (labels.tsv beside them) is a job of one task on three providers, on the
virtual clock. The label is taken for the truth: what it says to STOP fails whenever it is tried, what it says to
RESTART passes at the second attempt, what it says to do elsewhere fails for good on the provider where it failed
first. The same jobs run twice: retried blindly by the rules for exit codes (`retry.verdict = "off"`), and with the
engine's verdict on the log at each failure (`"obey"`). `wasted` are failed attempts beyond each job's first; `lost`
are jobs that another attempt would have completed and that did not complete. Prints JSON; exits 1 where verdicts
waste more than WASTED_MAX of what blind retry wastes, or lose a job.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from analytics.attribution.engine import Analysis, End, Rules, judge
from coordinator.core.rows import EndCause
from coordinator.core.verdict.rows import Verdict
from coordinator.core.work.jobspec import Heed, RetryRule
from tests import verdicts
from tests.site import Site, a_job

LOGS = Path(__file__).parents[2] / "shared/data/logs/excerpts"
PROVIDERS = ("a", "b", "c")
BUDGET = 3
WASTED_MAX = 0.2
ELSEWHERE, STOP = "RESTART_EXCLUDE_NODE", "STOP"
BEYOND_BACKOFF_S = 60


@dataclass(frozen=True)
class Failure:
    """One log, and what its label says to do about it."""

    action: str
    log: bytes

    def fails(self, attempt: int, provider: str, first: str) -> bool:
        """Whether this attempt fails too, if the label is the truth."""
        return attempt == 1 or self.action == STOP or (self.action == ELSEWHERE and provider == first)


@dataclass(frozen=True)
class Outcome:
    attempts: int
    failed: int
    completed: bool


def main() -> int:
    """Print the figures; 1 when a floor was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--logs", type=Path, default=LOGS, help="a folder with labels.tsv; the first line of a log is not fed"
    )
    parser.add_argument("--quick", action="store_true", help="ten failures")
    given = parser.parse_args()
    if not (given.logs / "labels.tsv").is_file():
        sys.exit(f"no labelled logs in {given.logs}: name a folder with --logs")
    failures = read(given.logs)[: 10 if given.quick else None]
    rules = Rules.load()
    told = {name: figures(failures, [run(one, heed, rules) for one in failures]) for name, heed in WAYS.items()}
    ratio = told["verdicts"]["wasted"] / max(1, told["blind"]["wasted"])
    print(
        json.dumps(
            {
                "bench": "retries_saved",
                "n": len(failures),
                "figures": told,
                "ratios": {"wasted_to_blind": round(ratio, 3)},
                "floors": {"wasted_to_blind_max": WASTED_MAX, "lost_max": 0},
            }
        )
    )
    return 1 if ratio > WASTED_MAX or told["verdicts"]["lost"] else 0


WAYS = {"blind": Heed.OFF, "verdicts": Heed.OBEY}


def read(folder: Path) -> list[Failure]:
    """All that did not go well."""
    with (folder / "labels.tsv").open(encoding="utf-8") as labels:
        rows = list(csv.DictReader(labels, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [
        Failure(row["action"], (folder / row["file"]).read_bytes().split(b"\n", 1)[1])
        for row in rows
        if row["action"] != "OK"
    ]


def run(failure: Failure, heed: Heed, rules: Rules) -> Outcome:
    """One job to its end."""
    site = Site(*PROVIDERS, policy=verdicts.WAITS)
    site.submit(a_job(retry=RetryRule(limit=BUDGET, verdict=heed)))
    site.run_to(1)
    number, failed, first = 0, 0, ""
    while site.job().state not in ("completed", "failed", "cancelled"):
        number += 1
        attempt = f"1.0.0.{number}"
        provider = verdicts.where(site, attempt)
        first = first or provider
        fails = failure.fails(number, provider, first)
        failed += fails
        site.exits(attempt, 1 if fails else 0, err_bytes=len(failure.log))
        if fails and heed is not Heed.OFF:
            verdicts.judge(site, attempt, verdict_on(failure, site, rules))
        site.run_to(site.now_s + BEYOND_BACKOFF_S)
    return Outcome(number, failed, site.job().state == "completed")


def verdict_on(failure: Failure, site: Site, rules: Rules) -> Verdict:
    """As the follower makes it: the log, how the process ended, what came before, and where."""
    asked = verdicts.wanted(site)[-1]
    analysis = Analysis(rules)
    analysis.feed(failure.log, 1)
    return judge([analysis], End(cause=EndCause.EXITED, code=1), asked.history[::-1], asked.providers)


def figures(failures: list[Failure], outcomes: list[Outcome]) -> dict[str, int]:
    """Over all jobs."""
    return {
        "attempts": sum(one.attempts for one in outcomes),
        "wasted": sum(max(0, one.failed - 1) for one in outcomes),
        "completed": sum(one.completed for one in outcomes),
        "lost": sum(
            not one.completed for one, failure in zip(outcomes, failures, strict=True) if failure.action != STOP
        ),
    }


if __name__ == "__main__":
    sys.exit(main())
