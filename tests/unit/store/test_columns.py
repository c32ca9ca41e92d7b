"""What the analytics worker reads: columns, followed by change sequence."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from coordinator.core.commands import Delete, Put
from coordinator.core.errors import Code, CoordError
from coordinator.core.rows import EndReason, MetaRow, OutageRow
from store.columns import REASONS, TruthReader
from store.durable import DiskStore
from tests.conformance.homes import HOUR_MS, NOON_MS, DiskHome, a_beat, a_provider, a_session, imported


def test_changes_of_sessions_are_followed_by_their_sequence(tmp_path: Path) -> None:
    """Page by page, each session in its present state, again when it changed; imported ones with negative ids."""
    home = DiskHome(tmp_path / "data")

    async def story(store: DiskStore) -> None:
        await store.commit([Put(a_session(n, NOON_MS + n, boot_id="b")) for n in (1, 2, 3)])
        with closing(TruthReader(home.data.path)) as reader:
            first = reader.sessions_since(0, 2)
            assert ([1, 2], [1, 2], ["a", "a"]) == (
                first.change_seq.tolist(),
                first.session_id.tolist(),
                first.provider_id,
            )
            assert ([-1, -1], [-1, -1], [-1, -1]) == (
                first.disconnected_at_ms.tolist(),
                first.last_heartbeat_at_ms.tolist(),
                first.reason.tolist(),
            )
            await store.commit([Put(a_session(1, NOON_MS + 1, NOON_MS + 9, last_heartbeat_at_ms=NOON_MS + 8))])
            await store.import_sessions([imported(1, "z", 5, 6, EndReason.DRAINING)])
            rest = reader.sessions_since(2, 100)
            assert [3, 1, -1] == rest.session_id.tolist()
            assert [-1, NOON_MS + 9, 6] == rest.disconnected_at_ms.tolist()
            assert [-1, NOON_MS + 8, -1] == rest.last_heartbeat_at_ms.tolist()
            names = [None if index < 0 else REASONS[index] for index in rest.reason.tolist()]
            assert [None, "read_error", "draining"] == names
            assert ["b", "", ""] == rest.boot_id
            assert ["another", "another", "import"] == rest.coordinator_id
            assert 0 == len(reader.sessions_since(int(rest.change_seq[-1]), 100).session_id)
            types = (np.int64, np.int64, np.int64, np.int64, np.int64, np.int8)
            arrays = [column for column in rest if isinstance(column, np.ndarray)]
            assert [np.dtype(t) for t in types] == [a.dtype for a in arrays]

    home.run(story)


def test_everything_else_that_the_worker_needs(tmp_path: Path) -> None:
    """Outages, providers, keys of forgotten ones, alive_at, segments and rollups, with nothing known as none."""
    home = DiskHome(tmp_path / "data")

    async def story(store: DiskStore) -> None:
        with closing(TruthReader(home.data.path)) as reader:
            assert 32 == len(reader.epoch())
            assert (None, [], []) == (reader.alive_at_ms(), reader.providers(), reader.segments())
            assert (0, 0) == (len(reader.outages()[0]), len(reader.hours().key))
            await store.commit(
                [
                    Put(a_provider("b", 2, labels={"x": "y"})),
                    Put(a_provider("gone", 3)),
                    Put(a_session(1, provider="gone")),
                    Put(
                        OutageRow(coordinator_id="c", began_at_ms=NOON_MS + 50, ended_at_ms=NOON_MS + 60, cause="stall")
                    ),
                    Put(
                        OutageRow(coordinator_id="d", began_at_ms=NOON_MS + 5, ended_at_ms=NOON_MS + 6, cause="restart")
                    ),
                    Put(MetaRow(name="alive_at_ms", value="77")),
                ]
            )
            await store.commit([Delete("provider", "gone")])
            await store.append_heartbeats(
                [a_beat(NOON_MS, 2, cpu_usage=0.5, thermal_state=3), a_beat(NOON_MS + HOUR_MS, 2)]
            )
            await store.maintain(NOON_MS + HOUR_MS + 400_000)
            assert [[5, 50], [6, 60]] == [(times - NOON_MS).tolist() for times in reader.outages()]
            assert [("b", "default", 2, NOON_MS, '{"x":"y"}')] == reader.providers()
            assert [(2, "b"), (3, "gone")] == reader.keys()
            assert 77 == reader.alive_at_ms()
            ((path, hour_ms, rows),) = reader.segments()
            assert (True, NOON_MS, 1) == (path.exists(), hour_ms, rows)
            hours = reader.hours()
            assert ([NOON_MS, NOON_MS + HOUR_MS], [2, 2], [1, 1]) == (
                hours.hour_ms.tolist(),
                hours.key.tolist(),
                hours.heartbeats.tolist(),
            )
            np.testing.assert_array_equal([0.5, np.nan], hours.mean_cpu_usage)
            assert [3, -1] == hours.worst_thermal_state.tolist()
            assert [NOON_MS + HOUR_MS] == reader.hours(NOON_MS + HOUR_MS + 5).hour_ms.tolist()

    home.run(story)


def test_a_missing_directory_is_told(tmp_path: Path) -> None:
    """No database is made by looking for one."""
    with pytest.raises(CoordError) as refusal:
        TruthReader(tmp_path)
    assert Code.STORE_BROKEN is refusal.value.code
    assert [] == list(tmp_path.iterdir())
