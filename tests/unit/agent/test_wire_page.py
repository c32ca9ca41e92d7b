"""The page of the wire names every message, field, code and bound that there is, and its examples are real."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from coordinator import wire
from coordinator.agent.attempts import AGAIN_S, PHASE_AGAIN_S
from coordinator.agent.config import Patience
from coordinator.agent.connection import FRAME_BYTES_MAX
from coordinator.agent.endpoint import CONNECTIONS_MAX, NOT_YET, AttemptAnswer
from coordinator.agent.offset import RESOLUTION_MS, WINDOW
from coordinator.agent.places import VARIABLES
from coordinator.agent.plans import NODES, environment
from coordinator.core.amounts import Ask, Share
from coordinator.core.commands import CloseCode
from coordinator.core.ids import JobId
from coordinator.core.rows import EndCause, LeaseToken, Promises, Resources
from coordinator.core.work.jobspec import Isolation, LogFull
from coordinator.core.work.launch_plan import LaunchPlan, Limits

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"
PAGE = (REFERENCE / "wire.md").read_text()
MESSAGES: list[type[msgspec.Struct]] = [
    wire.Hello,
    wire.Heartbeat,
    wire.Pong,
    wire.Bye,
    wire.Granted,
    wire.Refused,
    wire.Phase,
    wire.Exited,
    wire.Progress,
    wire.Cached,
    wire.Welcome,
    wire.Ack,
    wire.Ping,
    wire.Settings,
    wire.Drain,
    wire.Error,
    wire.Grant,
    wire.Launch,
    wire.Stop,
    wire.Settled,
    wire.Renew,
    wire.Warm,
    wire.Save,
    wire.LogAck,
]
PARTS: list[type[msgspec.Struct]] = [
    wire.EnrolRequest,
    wire.EnrolAnswer,
    wire.HeldAttempt,
    wire.Exit,
    Promises,
    LaunchPlan,
]


def section(heading: str) -> str:
    """The text below `### heading`, up to the next heading."""
    found = re.search(rf"^### {heading}\n(.*?)(?=^##)", PAGE, re.S | re.M)
    assert found is not None, f"the page has no section {heading}"
    return found[1]


def test_every_message_of_the_wire_is_in_the_list_of_this_test() -> None:
    """A message that is added to wire.py must come here, and so onto the page."""
    tagged = {
        thing
        for thing in vars(wire).values()
        if isinstance(thing, type) and issubclass(thing, wire.Message) and thing is not wire.Message
    }
    assert tagged == set(MESSAGES)


@pytest.mark.parametrize("message", MESSAGES)
def test_every_field_of_every_message_is_described(message: type[msgspec.Struct]) -> None:
    """In a row of the table of its section, beside the message's own type."""
    config = message.__struct_config__
    text = section(str(config.tag))
    assert f'`"{config.tag}"`' in text
    for field in message.__struct_encode_fields__:
        assert f"\n| `{field}` |" in text, f"{config.tag}.{field}"


@pytest.mark.parametrize("struct", PARTS)
def test_the_parts_of_messages_and_the_enrolment_are_described(struct: type[msgspec.Struct]) -> None:
    """Every field has its row in the table of its section, and there are no others."""
    rows = set(re.findall(r"^\| `(\w+)` \|", section(struct.__name__), re.M))
    assert rows == set(struct.__struct_encode_fields__)


def test_what_a_lease_holds_is_described() -> None:
    """Shares, limits and renewals stand in their message's row, and every closed set has all its values."""
    for kind, place in ((Share, "grant"), (Ask, "grant"), (wire.Renewal, "renew"), (Limits, "LaunchPlan")):
        for field in kind.__struct_encode_fields__:
            assert f"`{field}`" in section(place), (kind, field)
    for values, place in ((EndCause, "Exit"), (Isolation, "Promises"), (LogFull, "LaunchPlan")):
        for value in values:
            assert f"`{value}`" in section(place), value


def test_the_bounds_of_logs_and_leases_are_named() -> None:
    """Windows, sizes and shares are as the code has them, and the header has the length that it is said to have."""
    for bound in (wire.LOG_BYTES_MAX, wire.LOG_WINDOW_BYTES, wire.LOG_CONNECTION_BYTES, wire.ATTEMPTS_MAX):
        assert f"{bound:,}" in PAGE, bound
    assert f"{wire.LOG_UNWANTED} (2^53)" in PAGE
    assert f"The header has {wire.LOG_HEADER_BYTES} bytes" in PAGE
    assert wire.FREEZE_SHARE == 5 / 6
    assert "When 5/6 of the term are over" in PAGE
    assert f"After {wire.KEPT_FROZEN_S / 3600:.0f} h frozen" in PAGE
    table = PAGE.partition("## 10. Logs")[2].partition("The header has")[0]
    sizes = [int(n) for row in re.findall(r"^\| ([\d, ]+) \|", table, re.M) for n in row.split(",")]
    assert sum(sizes) == wire.LOG_HEADER_BYTES
    assert f"frames of up to {FRAME_BYTES_MAX >> 20} MiB" in PAGE
    assert f"every {AGAIN_S:.0f} s until" in section("granted")
    assert f"every {AGAIN_S:.0f} s, and" in section("exited")
    assert f"every {PHASE_AGAIN_S:.0f} s" in section("phase")


def test_nothing_is_described_that_does_not_exist() -> None:
    """A row of a message's table is a field of the message."""
    for message in MESSAGES:
        tag = message.__struct_config__.tag
        rows = set(re.findall(r"^\| `(\w+)` \|", section(str(tag)), re.M))
        assert rows - {"type"} == set(message.__struct_encode_fields__)


def test_values_bounds_paths_and_codes_are_named() -> None:
    """Closed sets, limits, both paths, every close code with its name, and the figures of retry and clock."""
    for word in (*wire.STATUSES, *wire.THERMALS, *Resources.__struct_encode_fields__):
        assert f"`{word}`" in PAGE, word
    assert f"`GET {wire.CONNECT_PATH}`" in PAGE
    assert f"POST {wire.ENROL_PATH} " in PAGE
    assert f"| {wire.FRAME_BYTES_MAX:,} (288 KiB) |" in PAGE
    assert f"| messages in an array | {wire.FRAME_MESSAGES_MAX} |" in PAGE
    assert f"Protocol version: **{wire.VERSIONS[-1]}**" in PAGE
    for code in CloseCode:
        assert f"\n| {int(code)} | {code.name} |" in PAGE, code
    patience = Patience()
    assert patience.retry_ceilings_s == (2.5, 5.0, *(10.0,) * 8, 20.0, 30.0)
    assert "Ceilings: 2.5 s, 5 s, eight times 10 s, 20 s,\nthen 30 s for ever" in PAGE
    assert f"{patience.later_s:.0f} s more than that" in PAGE
    assert f"delay / 2 + {RESOLUTION_MS}" in PAGE
    assert f"Keep the last {WINDOW} exchanges" in PAGE


def test_what_an_attempt_is_told_and_may_ask_is_on_its_page() -> None:
    """Every variable of keeper, daemon and runtime, every path of the endpoint, every field of its answer."""
    page = (REFERENCE / "attempt.md").read_text()
    launch = wire.Launch(attempt="1.0.0.1", rank=0, token=LeaseToken(1, 1), plan=LaunchPlan(argv=("true",)))
    told = {name for name, _ in environment("http://127.0.0.1:1", launch)}
    assert told == {"COORD_JOB_ID", "COORD_TASK_ID", "COORD_ATTEMPT", "COORD_RANK", "COORD_ATTEMPT_URL"}
    for name in (*told, *VARIABLES, NODES, "COORD_ATTEMPT_TOKEN_FILE", "COORD_ARRAY_INDEX", "CUDA_VISIBLE_DEVICES"):
        assert f"`{name}`" in page, name
    for path in ("/v1/attempt", *NOT_YET):
        assert path in page
    for field in AttemptAnswer.__struct_encode_fields__:
        assert f'"{field}": ' in page
    assert f"{CONNECTIONS_MAX}\nconnections may be open" in page


def test_the_examples_are_what_the_code_understands() -> None:
    """Every frame of the conversation decodes as a message of its direction; the one stranger is answered."""
    conversation = PAGE.partition("## 12. A conversation")[2]
    lines = re.findall(r"^([AC])  (.*)$", conversation, re.M)
    assert len(lines) >= 30
    from_agent: msgspec.json.Decoder[object] = msgspec.json.Decoder(wire.FromAgent | list[wire.FromAgent])
    to_agent: msgspec.json.Decoder[object] = msgspec.json.Decoder(wire.FromCoordinator | list[wire.FromCoordinator])
    strangers = 0
    for who, text in lines:
        if text.startswith("close "):
            continue
        if text.startswith("binary "):
            chunk = wire.log_chunk(bytes.fromhex(text.removeprefix("binary ")))
            assert chunk == wire.LogChunk((JobId(12), 0, 7, 2), 0, 0, LeaseToken(1, 341), 0, b"done\n")
            continue
        try:
            (from_agent if who == "A" else to_agent).decode(text)
        except msgspec.ValidationError:
            strangers += 1
            assert '"temperature"' in text
    assert strangers == 1
