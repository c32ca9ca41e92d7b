"""Why an agent ends: one table from reason to exit status, and the exception that carries one."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit statuses of `coord agent`, in the meanings that all of `coord` gives them.

    All but STOPPED and FAULT need a person: a supervisor should not start the agent again.
    """

    STOPPED = 0
    """It was asked to stop, and said good-bye if it was connected."""
    FORGOTTEN = 66
    """The coordinator no longer knows this provider."""
    FAULT = 71
    """The daemon cannot even start, several times in a row."""
    CLASH = 73
    """Another agent runs on this state directory, the identity is another machine's, or the id is taken."""
    DISK = 74
    """The state directory cannot be written."""
    PROTOCOL = 76
    """Coordinator and agent have no version of the protocol in common."""
    REFUSED = 77
    """The join token or the credential was refused."""
    CONFIG = 78
    """The options are wrong, contradict what the state directory remembers, or others may read that."""


FINAL = frozenset(Exit) - {Exit.FAULT}
"""Statuses of the daemon that end the keeper too; anything else is a crash and the daemon is started again."""


class AgentStop(Exception):
    """The agent cannot go on: `message` says what is, `hint` what to do."""

    def __init__(self, exit_code: Exit, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message
