"""The demo's last scene: a tenant with limits, a price, and what is refused and charged."""

from __future__ import annotations

from cli import exits
from cli.demo.screen import command, remark, step
from cli.demo.stage import Stage
from coordinator.core.errors import Code

LIMITS = ("--cpus", "2", "--budget", "10", "--weight", "3")


def show_sharing(place: Stage) -> None:
    """Make a tenant, run something at its expense, and ask for too much."""
    step("Guests may use it, too, but not all of it: at most two CPUs at a time, and ten units of account a month.")
    _say(place, "tenant", "create", "guests", *LIMITS)
    _say(place, "pool", "price", "default", "--cpu", "36")
    _say(place, "submit", "--tenant", "guests", "--wait", "--expected", "1s", "--", "sleep", "0.5")
    step("Too much of it is refused, and everything that is in the way is said at once.")
    big = ("submit", "--tenant", "guests", "--cpus", "4", "--time-limit", "1d", "--", "./simulate")
    _say(place, *big, status=exits.of(Code.QUOTA))
    remark(f"exit status {exits.of(Code.QUOTA)}: nothing was taken")
    step("What they hold, have spent and have left, and charge by charge.")
    _say(place, "usage", "guests")
    _say(place, "usage", "--ledger")


def _say(place: Stage, *arguments: str, status: int = 0) -> None:
    command("coord " + " ".join(arguments))
    place.run(*arguments, status=status)
