"""Network namespaces: each agent behind a cable of its own that can be cut, in one direction or in both."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType

import pytest

from tests.acceptance.processes import Agent, Head

NET = f"10.231.{os.getpid() % 256}"
"""Tests that run side by side have networks of their own."""
CABLES_MAX = 64
_numbers = itertools.count()


def run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(argv)}: {done.stderr.strip()}")


class Cable:
    """A pair of virtual interfaces between us and a network namespace; what crosses it can be dropped by direction.

    The test is skipped where none can be made. From inside, every address of ours is reached through it.
    """

    def __init__(self) -> None:
        number = next(_numbers) % CABLES_MAX
        self.namespace = f"coord-{os.getpid()}-{number}"
        self.ours, self._theirs = f"{NET}.{4 * number + 1}", f"{NET}.{4 * number + 2}"
        self._near, self._far = f"cn{os.getpid()}n{number}", f"cf{os.getpid()}n{number}"
        self._inside = ("ip", "netns", "exec", self.namespace)

    def __enter__(self) -> Cable:
        for tool in ("ip", "nft", "nsenter"):
            if shutil.which(tool) is None:
                pytest.skip(f"{tool}, which cuts a network, is not installed")
        try:
            run("ip", "netns", "add", self.namespace)
            run("ip", "link", "add", self._near, "type", "veth", "peer", "name", self._far, "netns", self.namespace)
            run("ip", "address", "add", f"{self.ours}/30", "dev", self._near)
            run("ip", "link", "set", self._near, "up")
            run(*self._inside, "ip", "address", "add", f"{self._theirs}/30", "dev", self._far)
            run(*self._inside, "ip", "link", "set", self._far, "up")
            run(*self._inside, "ip", "link", "set", "lo", "up")
            run(*self._inside, "ip", "route", "add", "default", "via", self.ours)
            self.cut("output")
            self.mend()
        except OSError as refused:
            self.close()
            pytest.skip(f"no network of our own can be made here: {refused}")
        return self

    def cut(self, *hooks: str) -> None:
        """Drop what leaves the agent's side (`output`), what reaches it (`input`), or both; nobody is told. Inside
        itself the namespace goes on, as a machine does without a network."""
        run(*self._inside, "nft", "add", "table", "inet", "cut")
        for hook in hooks:
            chain = f"{{ type filter hook {hook} priority 0; policy drop; }}"
            run(*self._inside, "nft", "add", "chain", "inet", "cut", hook, chain)
            name = "oifname" if hook == "output" else "iifname"
            run(*self._inside, "nft", "add", "rule", "inet", "cut", hook, name, "lo", "accept")

    def mend(self) -> None:
        """Let everything through again; nothing where nothing is cut."""
        run(*self._inside, "nft", "add", "table", "inet", "cut")
        run(*self._inside, "nft", "delete", "table", "inet", "cut")

    def close(self) -> None:
        for argv in (("ip", "link", "delete", self._near), ("ip", "netns", "delete", self.namespace)):
            subprocess.run(argv, capture_output=True, check=False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class FarAgent(Agent):
    """An agent at the other end of a cable. The head listens on an address of ours."""

    def __init__(self, directory: Path, head: Head, provider_id: str, cable: Cable, *arguments: str) -> None:
        super().__init__(directory, head, provider_id, "--insecure", *arguments)
        # `ip netns exec` would mount a /sys without cgroups over ours as well
        self.argv = ("nsenter", f"--net=/run/netns/{cable.namespace}", "--", *self.argv)
        self.cable = cable
