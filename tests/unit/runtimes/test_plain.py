"""Plain processes: what a task's own values make of a step, and that nothing else is touched."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from coordinator.core.amounts import UNIT, Ask, Share
from coordinator.core.commands import Launch
from coordinator.core.ids import JobId, ProviderId, TenantName
from coordinator.core.rows import LeaseToken
from coordinator.core.work.jobspec import CheckpointRule, Isolation, LogFull, StepSpec, task_values
from coordinator.core.work.launch_plan import LaunchPlan, Limits
from coordinator.runtimes import RUNTIMES
from coordinator.runtimes.placeholders import fill, names
from coordinator.runtimes.plain import ALIKE_MAX, _alike, plain, plan_of


def a_plan(task: int = 0, rank: int = 0, nodes: int = 1, share: Share | None = None, **step: Any) -> LaunchPlan:
    """The plan of one rank of a task of this step."""
    order = Launch(
        attempt_id=(JobId(1), 0, task, 1),
        rank=rank,
        token=LeaseToken(1, 1),
        tenant=TenantName("physics"),
        step=StepSpec(**{"name": "main", "command": ("true",), **step}),
        share=share if share is not None else Share(ask=Ask()),
        nodes=tuple(ProviderId(f"p{n}") for n in range(nodes)),
    )
    return RUNTIMES["plain"](order)


def test_everything_that_a_step_says_reaches_the_plan() -> None:
    """Limits come from the share, GPUs by their index, the rest as it was asked for."""
    share = Share(ask=Ask(cpus=3 * UNIT, gpus=2 * UNIT, memory=5 << 30), gpus=((1, UNIT), (4, UNIT)))
    plan = a_plan(
        share=share,
        command=("train", "--fast"),
        env=(("A", "1"),),
        directory="/data",
        stdin="input",
        time_limit_ms=60_000,
        grace_ms=1_500,
        isolation=Isolation.UID,
        log_full=LogFull.BLOCK,
        log_bytes_max=1_000,
    )
    assert plan == LaunchPlan(
        argv=("train", "--fast"),
        env=(("A", "1"), ("COORD_NODES", "1")),
        directory="/data",
        stdin="input",
        gpus=(1, 4),
        limits=Limits(cpus=3 * UNIT, memory=5 << 30, log_bytes=1_000),
        time_limit_ms=60_000,
        grace_ms=1_500,
        isolation=Isolation.UID,
        tenant="physics",
        log_full=LogFull.BLOCK,
    )


def test_the_ranks_of_several_nodes_are_told_where_all_of_them_are() -> None:
    """In the order of their ranks, whatever the job says of it; of one node nothing is said: tasks that are alike share
    their plan."""
    for rank in range(3):
        plan = a_plan(rank=rank, nodes=3, env=(("COORD_NODELIST", "mine"),))
        assert {"COORD_NODES": "3", "COORD_NODELIST": "p0,p1,p2"} == dict(plan.env)
    assert {"COORD_NODES": "1"} == dict(a_plan().env)


def test_a_task_of_a_matrix_and_an_array_has_its_own_values_everywhere() -> None:
    """In the command, the environment, the directory and the input; the last axis turns fastest."""
    step: dict[str, Any] = {
        "tasks": 12,
        "array": ((10, 12, 1),),
        "matrix": (("lr", ("0.1", "0.01")), ("seed", ("a", "b"))),
        "command": ("run", "--lr={lr}", "{index}/{seed}", "{rank} of {nodes}"),
        "env": (("SEED", "{seed}"),),
        "directory": "/data/{index}",
        "stdin": "{item} {lr}\n",
    }
    plan = a_plan(task=6, rank=1, nodes=2, **step)
    assert plan.argv == ("run", "--lr=0.01", "11/a", "1 of 2")
    assert dict(plan.env) == {"SEED": "a", "COORD_ARRAY_INDEX": "11", "COORD_NODES": "2", "COORD_NODELIST": "p0,p1"}
    assert (plan.directory, plan.stdin) == ("/data/11", "11 0.01\n")


def test_an_arrays_item_is_filled_in_and_its_place_is_its_index() -> None:
    plan = a_plan(task=1, tasks=2, items=("first line", "second; rm -rf {index}"), command=("echo", "{item}"))
    assert plan.argv == ("echo", "second; rm -rf {index}"), "what a value holds is not filled in again"
    assert dict(plan.env) == {"COORD_ARRAY_INDEX": "1", "COORD_NODES": "1"}


def test_a_step_without_an_array_is_told_no_index_and_may_set_it_itself() -> None:
    assert dict(a_plan().env) == {"COORD_NODES": "1"}
    own = a_plan(array=((0, 3, 1),), tasks=4, env=(("COORD_ARRAY_INDEX", "mine"),))
    assert dict(own.env)["COORD_ARRAY_INDEX"] == "mine"


@pytest.mark.parametrize(
    ("text", "filled", "found"),
    [
        ("{a}", "1", ("a",)),
        ("x{a}y{b-2}{a}", "x1y2" + "1", ("a", "b-2")),
        ("{{a}}", "{a}", ()),
        ("${a} ${HOME}", "${a} ${HOME}", ()),
        ('{"k": {"v": {"w": 1}}}', '{"k": {"v": {"w": 1}}}', ()),
        ('{"k": {"v": "{a}"}}', '{"k": {"v": "1"}}', ("a",)),
        ("awk '{print $1}'", "awk '{print $1}'", ()),
        ("{unknown}", "{unknown}", ("unknown",)),
        ("{}{ a }{0}{{}}", "{}{ a }{0}{{}}", ()),
        ("{a", "{a", ()),
    ],
)
def test_placeholders(text: str, filled: str, found: tuple[str, ...]) -> None:
    """Names in single braces, nothing else: JSON, scripts and the shell's own variables pass through."""
    assert fill(text, {"a": "1", "b-2": "2"}) == filled
    assert names(text) == found


@given(st.text(alphabet="{}$ab_- \n"), st.text())
def test_a_text_without_placeholders_and_escapes_is_what_it_was(text: str, value: str) -> None:
    """And whatever a value holds, it stands there once as it is."""
    if not names(text) and "{{" not in text:
        assert fill(text, {"a": value, "b": value}) == text
    assert fill("<{a}>", {"a": value}) == f"<{value}>"


TEXTS = st.sampled_from(("true", "{index}", "{{index}}", "{kind}", "{nodes}", "{ x", "plain"))


@given(
    command=st.lists(TEXTS, min_size=1, max_size=2),
    env=st.lists(st.tuples(st.sampled_from(("A", "COORD_ARRAY_INDEX", "COORD_NODES")), TEXTS), max_size=3),
    directory=TEXTS,
    of=st.sampled_from(
        (
            {},
            {"array": ((3, 9, 2),)},
            {"items": ("x", "y", "z", "u")},
            {"array": ((1, 2, 1),), "matrix": (("kind", ("a", "b")),)},
            {"matrix": (("kind", ("a", "b", "c", "d")),)},
            {"checkpoint": CheckpointRule(path="state")},
            {"nodes": 2},
        )
    ),
    tenants=st.lists(st.sampled_from(("physics", "chemistry")), min_size=2, max_size=4),
    cpus=st.lists(st.integers(1, 2), min_size=4, max_size=4),
)
def test_what_tasks_have_in_common_is_made_once_and_changes_no_plan(
    command: list[str],
    env: list[tuple[str, str]],
    directory: str,
    of: dict[str, Any],
    tenants: list[str],
    cpus: list[int],
) -> None:
    """Whoever runs the step, with whatever share, in whatever order its tasks come."""
    step = StepSpec(name="main", command=tuple(command), env=tuple(env), directory=directory, tasks=4, **of)
    for turn, tenant in enumerate(tenants):
        for task in (3, 0, turn):
            order = Launch(
                attempt_id=(JobId(1), 0, task, 1),
                rank=0,
                token=LeaseToken(1, 1),
                tenant=TenantName(tenant),
                step=step,
                share=Share(ask=Ask(cpus=cpus[turn] * UNIT)),
                nodes=tuple(ProviderId(f"p{n}") for n in range(step.nodes)),
            )
            assert plan_of(order, task_values(step, task)) == plain(order)


def test_what_is_passed_on_is_what_any_task_behind_takes() -> None:
    """By rank 0, which brings the outputs: a placeholder of the step behind is any text. Who passes nothing on has a
    plan of its own."""
    step = StepSpec(name="main", command=("true",), outputs=("*",), tasks=2)
    patterns = ("parts/{index}-{{x}}.bin", "all.bin")
    for passed_on, expected in ((patterns, ("parts/*-{x}.bin", "all.bin")), ((), ()), (patterns[1:], patterns[1:])):
        order = Launch(
            attempt_id=(JobId(1), 0, 0, 1),
            rank=0,
            token=LeaseToken(1, 1),
            tenant=TenantName("physics"),
            step=step,
            share=Share(ask=Ask(cpus=UNIT)),
            nodes=(ProviderId("p0"),),
            passed_on=passed_on,
        )
        assert plain(order).passed_on == expected
        assert plain(replace(order, rank=1, nodes=order.nodes * 2)).passed_on == ()


def test_plans_that_are_kept_are_bounded() -> None:
    for number in range(3 * ALIKE_MAX):
        a_plan(command=("true", str(number)))
    assert len(_alike) <= ALIKE_MAX
