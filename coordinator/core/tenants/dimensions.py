"""The dimensions of a quota, and where each refuses."""

from __future__ import annotations

from coordinator.core.policy import Policy

CONCURRENT = ("cpus", "gpus", "memory")
"""What is held at a time: filled up to the guardrail, not beyond."""
COUNTS = ("running", "queued")
"""Exact, without a guardrail."""
CUMULATIVE = ("storage", "ingress", "egress", "budget")
"""Refused when use and promises and the request together would reach the guardrail."""
DIMENSIONS = (*CONCURRENT, *COUNTS, *CUMULATIVE)


def guardrail(name: str, limit: int, policy: Policy) -> int:
    """What may not be passed (concurrent ones and counts) or not be reached (cumulative ones)."""
    if name in COUNTS:
        return limit
    share = limit * policy.guardrail_percent
    return share // 100 if name in CONCURRENT else -(-share // 100)
