"""An agent as a process: [AgentConfig, Patience] as JSON on stdin, the keeper's exit status at the end."""

from __future__ import annotations

import sys

import msgspec

from coordinator.agent import keeper
from coordinator.agent.config import AgentConfig, Patience

if __name__ == "__main__":
    config, patience = msgspec.json.decode(sys.stdin.buffer.read(), type=tuple[AgentConfig, Patience])
    sys.exit(keeper.run(config, patience))
