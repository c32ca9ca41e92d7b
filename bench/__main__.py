"""`python -m bench run [--quick] [NAME ...]` and `python -m bench soak [--again] [PART ...]`.

`run` starts each bench as a process of its own and keeps what it prints (one JSON object with `figures`,
`ratios`, `floors`, `n`) in bench/results/NAME.json with the date, the commit and the machine. `soak` runs
every test marked soak (or those whose names hold a PART) as a part of at most twenty minutes, keeps each result,
and goes on where it stopped; several may run at once.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

from bench.kept import ROOT, commit, keep, keep_part, kept_parts, today

BENCHES = (
    "heartbeat_store",
    "rollup",
    "reliability",
    "saturation",
    "client_start",
    "commit",
    "decisions",
    "log_store",
    "blobs",
    "restart",
    "logs",
    "following",
    "placement",
    "true_tasks",
    "leases",
    "wasted_work",
    "made_fleets",
    "retries_saved",
    "schedules",
    "shared_gpus",
    "staging",
    "attribution",
    "launches",
    "tracing",
    "trace_store",
    "traces",
)
PART_S_MAX = 20 * 60
LONG_PART_S_MAX = 25 * 60
"""Of a part that is about twenty minutes, and says so in its name."""


def main() -> int:
    """Exit status 0 when every floor held and every part passed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="the figures of docs/performance.md")
    run.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}; all without")
    run.add_argument("--quick", action="store_true", help="small sizes: does it run, not how fast")
    soak = commands.add_parser("soak", help="the full figures, in resumable parts")
    soak.add_argument("parts", nargs="*", metavar="PART", help="only tests whose names hold one of these")
    soak.add_argument("--again", action="store_true", help="also the parts that passed already")
    arguments = parser.parse_args()
    if arguments.command == "run":
        return run_benches(tuple(arguments.names) or BENCHES, quick=arguments.quick)
    return run_soak(tuple(arguments.parts), again=arguments.again)


def run_benches(names: tuple[str, ...], *, quick: bool) -> int:
    """Run each bench; a quick one is not kept."""
    missed = 0
    for name in names:
        argv = [sys.executable, "-m", f"bench.{name}", *(["--quick"] if quick else [])]
        done = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
        print(done.stdout.rstrip())
        missed += done.returncode != 0
        if not quick and done.stdout.strip():
            keep(f"{name}.json", {"command": " ".join(["python", *argv[1:]]), **json.loads(done.stdout)})
    return 1 if missed else 0


def run_soak(wanted: tuple[str, ...], *, again: bool) -> int:
    """Every soak test that has not passed yet, each with its own time limit."""
    failed = 0
    for node in soak_tests():
        if wanted and not any(part in node for part in wanted):
            continue
        if kept_parts().get(node, {}).get("passed") and not again:
            print(f"passed already: {node}")
            continue
        print(f"running: {node}", flush=True)
        began = time.monotonic()
        argv = [sys.executable, "-m", "pytest", "-q", "-m", "soak", "-s", node]
        within_s = LONG_PART_S_MAX if "twenty_minutes" in node else PART_S_MAX
        try:
            done = subprocess.run(argv, cwd=ROOT, timeout=within_s, capture_output=True, text=True, check=False)
            passed, said = done.returncode == 0, done.stdout
        except subprocess.TimeoutExpired as error:
            passed, said = False, f"{(error.stdout or b'')!r}\ntook longer than {within_s} s"
        failed += not passed
        reports = [line for line in said.splitlines() if line.startswith("{")]
        part = {
            "passed": passed,
            "seconds": round(time.monotonic() - began, 1),
            "date": today(),
            "commit": commit(),
            "reports": [json.loads(line) for line in reports],
        }
        keep_part(node, part)
        print(f"{'passed' if passed else 'FAILED'} in {part['seconds']} s", flush=True)
        if not passed:
            print(said[-3000:])
    return 1 if failed else 0


def soak_tests() -> list[str]:
    """The node ids of every test marked soak."""
    argv = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-m", "soak"]
    listed = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    return [line for line in listed.splitlines() if "::" in line]


if __name__ == "__main__":
    sys.exit(main())
