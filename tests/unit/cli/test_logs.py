"""The lines of the long-running commands' logs."""

from __future__ import annotations

import logging
import re

import pytest

from cli import logs
from coordinator.agent import log as agent_log


def a_record(text: str, level: int = logging.WARNING) -> logging.LogRecord:
    return logging.LogRecord("coord.somewhere", level, __file__, 1, text, None, None)


@pytest.fixture
def agents_line(monkeypatch: pytest.MonkeyPatch) -> logging.Formatter:
    """Of a logger that is as it was afterwards: other tests listen to it."""
    for name, value in (("handlers", []), ("propagate", True), ("level", logging.NOTSET)):
        monkeypatch.setattr(agent_log.logger, name, value)
    agent_log.start("info")
    found = agent_log.logger.handlers[0].formatter
    assert found is not None
    return found


@pytest.fixture
def servers_line(monkeypatch: pytest.MonkeyPatch) -> logging.Formatter:
    for name, value in (("handlers", []), ("level", logging.NOTSET)):
        monkeypatch.setattr(logging.root, name, value)
    logs.to_stderr("info")
    found = logging.root.handlers[0].formatter
    assert found is not None
    return found


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING, logging.ERROR])
@pytest.mark.parametrize("text", ["it begins", "a\nb", "tab\there"])
def test_agent_and_server_write_the_same_line(
    agents_line: logging.Formatter, servers_line: logging.Formatter, text: str, level: int
) -> None:
    """One style on every machine: what sorts or greps one log does so with the other."""
    record = a_record(text, level)
    shape = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (INFO   |WARNING|ERROR  ) coord\.somewhere: [^\n]*"
    lines = [formatter.format(record) for formatter in (agents_line, servers_line)]
    assert all(re.fullmatch(shape, line) for line in lines)
    assert lines[0].partition(": ")[0] == lines[1].partition(": ")[0]
