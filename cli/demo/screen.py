"""What the demo says: a heading, the command that a user would type, a remark below it."""

from __future__ import annotations

import sys

from cli import terminal


def step(text: str, typed: str = "") -> None:
    bold, off = ("\x1b[1m", "\x1b[0m") if terminal.has_colour(sys.stdout) else ("", "")
    print(f"\n{bold}{text}{off}\n", flush=True)
    if typed:
        command(typed)


def command(text: str) -> None:
    cyan, off = ("\x1b[36m", "\x1b[0m") if terminal.has_colour(sys.stdout) else ("", "")
    print(f"  {cyan}$ {text}{off}", flush=True)


def remark(text: str) -> None:
    print(f"  {text}", flush=True)
