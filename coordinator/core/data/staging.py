"""Staging: whether an agent may act for an attempt, and what its step needs."""

from __future__ import annotations

from coordinator.core.commands import Decision, Reply
from coordinator.core.data.answers import Admitted
from coordinator.core.data.claims import claimed
from coordinator.core.data.events import AttemptAsks
from coordinator.core.data.room import check_egress
from coordinator.core.policy import Policy
from coordinator.core.state import ClusterState


def on_asks(state: ClusterState, event: AttemptAsks, policy: Policy, out: Decision) -> None:
    """Also of an attempt that is only reserved: it may warm its provider's cache."""
    job, step, task, attempt = claimed(state, event.claim, reserved=True)
    if event.fetches:
        check_egress(state, job.row.tenant, 0, 0, policy)
    numbers = dict.fromkeys(wanted.step for wanted in step.spec.inputs if wanted.step is not None)
    needs = tuple((n, job.steps[n].spec.name, job.steps[n].spec.tasks) for n in numbers)
    admitted = Admitted(tenant=job.row.tenant, attempt=attempt.row, task=task.row, step=step.spec, needs=needs)
    out.replies.append(Reply(event.request_id, admitted))
