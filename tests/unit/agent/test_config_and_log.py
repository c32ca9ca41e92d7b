"""Options that cannot work are refused before anything is done; the log is safe for a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.agent import keeper
from coordinator.agent.config import AgentConfig, check_config
from coordinator.agent.exits import AgentStop, Exit
from coordinator.agent.log import printable


@pytest.mark.parametrize(
    "config",
    [
        AgentConfig(state_dir="x", provider_id="../up"),
        AgentConfig(state_dir="x", pool="with space"),
        AgentConfig(state_dir="x", labels={"a": "b\x1b[31m"}),
        AgentConfig(state_dir="x", labels={str(i): "" for i in range(65)}),
        AgentConfig(state_dir="x", cpus=0.0),
        AgentConfig(state_dir="x", memory_gb=float("nan")),
        AgentConfig(state_dir="x", gpus=("g",) * 65),
        AgentConfig(state_dir="x", named={"": 1.0}),
        AgentConfig(state_dir="x", named={"licence": -1.0}),
        AgentConfig(state_dir="x", named={f"n{i}": 1.0 for i in range(65)}),
        AgentConfig(state_dir="x", isolation="container"),
        AgentConfig(state_dir="x", log_bytes_max=0),
    ],
)
def test_options_that_the_coordinator_would_refuse_are_refused_here(config: AgentConfig) -> None:
    """With status CONFIG, printable."""
    with pytest.raises(AgentStop) as stop:
        check_config(config)
    assert stop.value.exit_code is Exit.CONFIG
    assert str(stop.value).isprintable()


def test_the_keeper_ends_with_config_before_touching_the_disk(tmp_path: Path) -> None:
    """A wrong option leaves no state directory behind."""
    state = tmp_path / "state"
    assert keeper.run(AgentConfig(state_dir=str(state), provider_id="no/slash")) == Exit.CONFIG
    assert not state.exists()


def test_what_steers_a_terminal_is_shown_not_sent() -> None:
    """Escapes, newlines and right-to-left marks of a peer's text become visible escapes on one line."""
    assert printable("a\x1b[31m\nb\u202ec") == "a\\x1b[31m\\nb\\u202ec"
