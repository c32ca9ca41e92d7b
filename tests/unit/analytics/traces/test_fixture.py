"""The fixture of the original analyzer: its own answer, field by field."""

from __future__ import annotations

import json

import msgspec
import pytest

from analytics.traces.analysis import analyze
from analytics.traces.reading import read
from tests.unit.analytics.traces.runs import FLOWMESH

FIELDS = (
    "workflow_id",
    "event_count",
    "data_ids",
    "assets",
    "lineage",
    "e2e_breakdown",
    "per_data_id",
    "critical_path",
)


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_of_the_summary_is_the_originals(field: str) -> None:
    """The profile of the fixture equals what the original's own code gave, to the last digit."""
    if not FLOWMESH.is_dir():
        pytest.skip(f"{FLOWMESH} is not here")
    expected = json.loads((FLOWMESH / "expected_profile_summary.json").read_text())
    profile = msgspec.to_builtins(analyze(read([FLOWMESH]).trace, workflow_id="wfl-parity"))
    assert set(FIELDS) == set(expected)
    assert expected[field] == json.loads(json.dumps(profile[field]))
