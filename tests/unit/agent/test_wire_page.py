"""The page of the wire names every message, field, code and bound that there is, and its examples are real."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from coordinator import wire
from coordinator.agent.config import Patience
from coordinator.agent.offset import RESOLUTION_MS, WINDOW
from coordinator.core.commands import CloseCode
from coordinator.core.rows import Resources

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "wire.md").read_text()
MESSAGES: list[type[msgspec.Struct]] = [
    wire.Hello,
    wire.Heartbeat,
    wire.Pong,
    wire.Bye,
    wire.Welcome,
    wire.Ack,
    wire.Ping,
    wire.Settings,
    wire.Drain,
    wire.Error,
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


@pytest.mark.parametrize("struct", [wire.EnrolRequest, wire.EnrolAnswer])
def test_enrolment_is_described(struct: type[msgspec.Struct]) -> None:
    """Every field of request and answer has its row."""
    for field in struct.__struct_encode_fields__:
        assert f"\n| `{field}` |" in section(struct.__name__)


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
    assert f"| {wire.FRAME_BYTES_MAX:,} (64 KiB) |" in PAGE
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


def test_the_examples_are_what_the_code_understands() -> None:
    """Every frame of the conversation decodes as a message of its direction; the one stranger is answered."""
    conversation = PAGE.partition("## 10. A conversation")[2]
    lines = re.findall(r"^([AC])  (.*)$", conversation, re.M)
    assert len(lines) >= 15
    from_agent: msgspec.json.Decoder[object] = msgspec.json.Decoder(wire.FromAgent | list[wire.FromAgent])
    to_agent: msgspec.json.Decoder[object] = msgspec.json.Decoder(wire.FromCoordinator)
    strangers = 0
    for who, text in lines:
        if text.startswith("close "):
            continue
        try:
            (from_agent if who == "A" else to_agent).decode(text)
        except msgspec.ValidationError:
            strangers += 1
            assert '"temperature"' in text
    assert strangers == 1
