"""Job files that are right: every field, defaults, placeholders, arrays and matrices."""

from __future__ import annotations

import tomllib
from typing import Any

import msgspec
import pytest

from coordinator.core.amounts import UNIT, Ask
from coordinator.core.ids import Digest, Ms
from coordinator.core.work.jobspec import (
    Arrangement,
    CheckpointRule,
    Estimate,
    Heed,
    Input,
    Isolation,
    JobSpec,
    LogFull,
    OnLost,
    Overlap,
    RetryRule,
    StepSpec,
    When,
    task_values,
)
from coordinator.jobfile import JobError, describe, parse_job, tenant_of
from coordinator.jobfile.model import CHECKPOINT, ESTIMATE, INPUT, RETRY, STEP, JobFile, ResourcesModel, StepFields
from tests.unit.jobfile.examples import DIGEST, EVERYTHING

NOW: Ms = 1_800_000_000_000
GIB = 1 << 30


def a_job(**fields: Any) -> JobSpec:
    """A job of one step that runs `true`."""
    return parse_job({"command": ["true"]} | fields, now_ms=NOW)


def the_step(**fields: Any) -> StepSpec:
    (step,) = a_job(**fields).steps
    return step


def everything() -> JobSpec:
    return parse_job(tomllib.loads(EVERYTHING), now_ms=NOW)


def test_every_field_of_a_file_arrives_in_the_specification() -> None:
    """Read back whole: units are plain, needs are numbers, steps stand behind those that they need."""
    prep, train = everything().steps
    assert (
        StepSpec(
            name="prep",
            command=("/bin/sh", "-c", "cat < /dev/null | sort"),
            tasks=3,
            items=("x", "y z", "3"),
            env=(("A", "1"), ("B", "2")),
            retry=RetryRule(limit=2, delay_ms=1_000),
            outputs=("part-{index}.parquet", "notes/**"),
        )
        == prep
    )
    assert (
        StepSpec(
            name="train",
            command=(
                "python",
                "train.py",
                "--lr",
                "{lr}",
                "--opt={opt}",
                "{index}/{item}/{rank}/{nodes}",
                "{{lr}} ${HOME}",
            ),
            tasks=51 * 4,
            array=((0, 98, 2), (100, 100, 1)),
            matrix=(("lr", ("0.1", "0.001")), ("opt", ("adam", "sgd"))),
            needs=(0,),
            when=When.FINISHED,
            asks=(
                Ask(cpus=8 * UNIT, gpus=UNIT * 3 // 2, memory=16 * GIB, named=(("licence", UNIT),)),
                Ask(cpus=UNIT // 2),
            ),
            nodes=2,
            pools=("spare", "gpu"),  # type: ignore[arg-type]
            labels=(("zone", "a"),),
            isolation=Isolation.SANDBOX,
            min_score=0.5,
            min_forecast=0.8,
            time_limit_ms=6 * 3_600_000,
            expected_ms=5_400_000,
            grace_ms=30_000,
            env=(("A", "1"), ("B", "{lr}"), ("SEED", "7")),
            directory="/data/{opt}",
            stdin="{item}",
            retry=RetryRule(
                limit=2,
                losses=4,
                delay_ms=1_000,
                factor=3.0,
                delay_max_ms=3_600_000,
                on=("exit:75", "exit:1-9", "signal:KILL", "timeout", "oom", "stalled", "output"),
                never=("start",),
                elsewhere=True,
                verdict=Heed.ADVISE,
            ),
            on_lost=OnLost(mode="wait", wait_ms=1_200_000),
            overlap=Overlap.ALLOW,
            log_full=LogFull.BLOCK,
            log_bytes_max=1_000_000_000,
            max_fails=3,
            max_running=10,
            arrangement=Arrangement.SPREAD,
            inputs=(
                Input(path="", step=0, pattern="part-{index}.parquet"),
                Input(path="notes", step=0, pattern="**/*.json"),
                Input(path="bin/tool", digest=Digest(DIGEST), size=5, executable=True),
            ),
            checkpoint=CheckpointRule(path="ckpt", every_ms=600_000, keep=3, signal="USR1", grace_ms=120_000),
            stall_ms=900_000,
        )
        == train
    )
    job = everything()
    assert Estimate(cost=12_500_000, storage=2 * GIB, ingress=10**10, egress=10**6) == job.estimate
    assert 20 == job.priority
    assert ("nightly", NOW + 6 * 3_600_000) == (everything().name, everything().deadline_ms)
    assert "physics" == tenant_of(tomllib.loads(EVERYTHING))


def test_the_example_has_every_field_and_moves_every_field_of_the_specification() -> None:
    """Whatever is added to StepSpec or to the model has to be added to the example: nothing is forgotten."""
    plain = StepSpec(name="", command=())
    moved = {
        name
        for step in everything().steps
        for name in StepSpec.__struct_fields__
        if getattr(step, name) != getattr(plain, name)
    }
    assert set(StepSpec.__struct_fields__) - {"runtime"} == moved  # there is one runtime yet
    file = tomllib.loads(EVERYTHING)
    said = {key for step in file["step"] for key in step}
    assert STEP == said
    assert set(JobFile.__struct_fields__) - set(StepFields.__struct_fields__) == set(file)
    assert RETRY == {key for step in file["step"] for key in step.get("retry", {})} | set(file["defaults"]["retry"])
    assert ESTIMATE == set(file["estimate"]) == set(Estimate.__struct_fields__)
    assert INPUT == {key for one in file["step"][0]["inputs"] if isinstance(one, dict) for key in one}
    assert CHECKPOINT == set(file["step"][0]["checkpoint"])
    assert set(ResourcesModel.__struct_fields__) == set(file["step"][0]["resources"][0])


def test_json_says_the_same_as_toml() -> None:
    """One model: what a client sends is what a file holds."""
    assert everything() == parse_job(msgspec.json.decode(msgspec.json.encode(tomllib.loads(EVERYTHING))), now_ms=NOW)


def test_a_job_of_one_step_needs_no_list_of_steps() -> None:
    """Its fields stand at the top; the job is called as its program where nobody says otherwise."""
    job = parse_job({"command": ["/usr/bin/python3", "x.py"], "nodes": 2, "defaults": {"isolation": "uid"}}, now_ms=NOW)
    assert "python3" == job.name
    assert ("main", 2, Isolation.UID) == (job.steps[0].name, job.steps[0].nodes, job.steps[0].isolation)
    assert "job" == a_job(command=["./-"]).name
    assert "sweep" == a_job(name="sweep").name


def test_defaults_lie_below_each_step() -> None:
    """Tables are merged key by key, everything else is replaced, and one of command and shell hides the other."""
    prep, other = parse_job(
        {
            "defaults": {"command": ["a"], "env": {"A": "1", "B": "1"}, "resources": {"cpus": 4, "memory": "1GiB"}},
            "step": [{"name": "x", "env": {"B": "2"}, "resources": {"cpus": 2}}, {"name": "y", "shell": "b"}],
        },
        now_ms=NOW,
    ).steps
    assert (("A", "1"), ("B", "2")) == prep.env
    assert (Ask(cpus=2 * UNIT, memory=GIB),) == prep.asks
    assert ("a",) == prep.command and ("/bin/sh", "-c", "b") == other.command


@pytest.mark.parametrize(
    ("array", "tasks", "first", "last"),
    [
        ("1-1000", 1000, "1", "1000"),
        ("0-99:2", 50, "0", "98"),
        ("1,3,5-7", 5, "1", "7"),
        ("7", 1, "7", "7"),
        ("0-9999999", 10_000_000, "0", "9999999"),
        (["a", "b"], 2, "a", "b"),
        ([3, 1.5, True], 3, "3", "true"),
    ],
)
def test_arrays_in_all_their_forms(array: Any, tasks: int, first: str, last: str) -> None:
    """A range is a range, also one of ten million."""
    step = the_step(array=array, command=["run", "{item}"])
    assert tasks == step.tasks
    assert (first, last) == (task_values(step, 0)["item"], task_values(step, tasks - 1)["item"])


def test_a_matrix_multiplies_and_its_last_axis_turns_fastest() -> None:
    """Values are text as people write them."""
    step = the_step(matrix={"lr": [0.1, 0.01], "n": [1, 2, 3]}, array="5-6", command=["{lr}", "{n}", "{item}"])
    values = [task_values(step, task) for task in range(step.tasks)]
    assert 12 == len(values)
    assert [("0.1", "1"), ("0.1", "2"), ("0.1", "3"), ("0.01", "1")] == [(v["lr"], v["n"]) for v in values[:4]]
    assert ("5", "6") == (values[5]["item"], values[6]["item"])


@pytest.mark.parametrize(
    ("text", "ms"),
    [("90s", 90_000), ("2h", 7_200_000), ("1h30m", 5_400_000), ("1.5h", 5_400_000), ("1w2d", 777_600_000)],
)
def test_lengths_of_time_as_people_write_them(text: str, ms: Ms) -> None:
    """Units fall, parts add up."""
    assert ms == the_step(time_limit=text).time_limit_ms


@pytest.mark.parametrize(
    ("text", "size"), [("16GiB", 16 * GIB), ("4GB", 4_000_000_000), ("512 MiB", GIB // 2), ("1.5Gi", GIB * 3 // 2)]
)
def test_sizes_as_people_write_them(text: str, size: int) -> None:
    """Powers of 1024 have an i in them."""
    assert size == the_step(resources={"memory": text}).asks[0].memory


def test_a_deadline_is_a_time_or_a_length_from_now() -> None:
    """TOML's own times, ISO 8601 and lengths mean the same moment."""
    at = tomllib.loads("d = 2027-01-16T12:00:00Z")["d"]
    for deadline in (at, "2027-01-16T12:00:00Z", "2027-01-16T13:00:00+01:00", "4h"):
        assert (
            1_800_100_800_000
            == parse_job({"command": ["x"], "deadline": deadline}, now_ms=1_800_100_800_000 - 14_400_000).deadline_ms
        )


@pytest.mark.parametrize(
    ("cost", "millionths"),
    [
        (12, 12_000_000), (0.1, 100_000), ("0.1", 100_000), (1e-6, 1), (0, 0), (1e6, 10**12),
        ("999999999999.999999", 999_999_999_999_999_999),
    ],
)  # fmt: skip
def test_money_is_exact_however_it_is_written(cost: Any, millionths: int) -> None:
    """No sum of tenths is a hair off: what was written is what is reserved."""
    assert millionths == a_job(estimate={"cost": cost}).estimate.cost


def test_what_is_not_declared_is_made_from_prices_or_nothing() -> None:
    """Without a cost the coordinator makes one; sizes are 0."""
    assert Estimate() == a_job().estimate == a_job(estimate={}).estimate
    assert 0 == a_job().priority and -100 == a_job(priority=-100).priority


def test_an_input_from_a_step_is_a_need_of_it_and_steps_may_have_colons_in_their_names() -> None:
    """The longest name that fits is meant; the order of the file does not matter; what is said twice counts once."""
    steps = [
        {"name": "use", "command": ["x"], "inputs": ["a:b:*.pt", "a:*.pt", "a:*.pt", {"from": "a:d/", "to": "in/"}]},
        {"name": "a", "command": ["x"], "outputs": ["*.pt", "d/"]},
        {"name": "a:b", "command": ["x"], "outputs": ["*.pt"]},
    ]
    first, second, use = parse_job({"step": steps}, now_ms=NOW).steps
    assert ("a", "a:b", (0, 1)) == (first.name, second.name, use.needs)
    assert (
        Input(path="", step=1, pattern="*.pt"),
        Input(path="", step=0, pattern="*.pt"),
        Input(path="in", step=0, pattern="d/**"),
    ) == use.inputs


def test_steps_that_take_each_others_outputs_wait_for_each_other() -> None:
    """A circle is one however it is written."""
    steps = [
        {"name": "a", "command": ["x"], "outputs": ["x"], "inputs": ["b:x"]},
        {"name": "b", "command": ["x"], "outputs": ["x"], "inputs": ["a:x"]},
    ]
    with pytest.raises(JobError, match="a -> b -> a"):
        parse_job({"step": steps}, now_ms=NOW)
    with pytest.raises(JobError, match="step b declares no outputs"):
        parse_job({"step": [steps[0], {"name": "b", "command": ["x"]}]}, now_ms=NOW)


def test_a_file_that_two_inputs_name_alike_is_there_once() -> None:
    """A directory and a file in it, both given."""
    one = {"from": f"artifact:blake3:{DIGEST}", "to": "a/b"}
    assert (Input(path="a/b", digest=Digest(DIGEST)),) == the_step(inputs=[one, one | {"to": "./a/b"}]).inputs


def test_checkpoints_say_when_and_where_or_leave_it_to_the_program() -> None:
    """An empty table: the program takes them itself, in COORD_CHECKPOINT_DIR."""
    assert the_step().checkpoint is None
    assert CheckpointRule() == the_step(checkpoint={}).checkpoint
    assert CheckpointRule(auto=True) == the_step(checkpoint={"every": "auto"}).checkpoint
    assert (
        CheckpointRule(every_ms=1_000, signal="USR2")
        == the_step(checkpoint={"every": "1s", "signal": "USR2"}).checkpoint
    )


def test_a_little_of_something_is_never_nothing() -> None:
    """Amounts are whole millionths; what was asked for above 0 stays above 0."""
    assert 1 == the_step(resources={"cpus": 1e-9}).asks[0].cpus
    assert 0 == the_step(resources={"cpus": 0}).asks[0].cpus


def test_a_dry_run_shows_the_graph_and_hides_values_of_the_environment() -> None:
    """Names of needs, commands of the first tasks, what is not left at its default; values may be secrets."""
    prep, train = describe(everything())
    assert ((), ("prep",)) == (prep.needs, train.needs)
    assert ("8 cpus, 1.5 gpus, 16 GiB, 1 licence", "0.5 cpus") == train.resources
    assert ("python", "train.py", "--lr", "0.1", "--opt=sgd", "0/0/0/2", "{lr} ${HOME}") == train.commands[1]
    assert "A, B, SEED" == train.settings["env"]
    assert "wait:20m" == train.settings["on_lost"]
    assert "spread" == train.settings["arrangement"]
    assert "bin/tool (5 B), prep:part-{index}.parquet, prep:**/*.json into notes" == train.settings["inputs"]
    assert "every 10m, of ckpt, the last 3 kept, SIGUSR1, 2m to write one" == train.settings["checkpoint"]
    assert ("part-{index}.parquet, notes/**", "15m") == (prep.settings["outputs"], train.settings["stall_after"])
    assert 204 == train.tasks and 3 == len(train.commands)
    assert {} == describe(a_job())[0].settings
