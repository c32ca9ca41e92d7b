"""The data directory: private, and one server's at a time."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.core.errors import Code, CoordError
from store.layout import DataDir, write_private
from tests.conformance.homes import DiskHome


def test_directories_and_files_are_private(tmp_path: Path) -> None:
    """Whatever the umask, nobody else reads what a store makes, its logs included."""
    home = DiskHome(tmp_path / "data")

    async def look(store: object) -> None:
        for path in home.data.path.rglob("*"):
            mode = stat.S_IMODE(path.stat().st_mode)
            assert (0o700 if path.is_dir() else 0o600) == mode, path

    before = os.umask(0)
    try:
        home.run(look)
    finally:
        os.umask(before)
    assert 0o700 == stat.S_IMODE(home.data.path.stat().st_mode)


def test_a_directory_that_was_there_keeps_its_mode(tmp_path: Path) -> None:
    """`--data /some/shared/place` does not change that place."""
    tmp_path.chmod(0o755)
    DataDir(tmp_path).make()
    assert 0o755 == stat.S_IMODE(tmp_path.stat().st_mode)


def test_a_second_server_is_refused_and_told_the_pid(tmp_path: Path) -> None:
    """The lock names its holder, whichever process asks; it is free once the first has gone."""
    data = DataDir(tmp_path)
    lock = data.lock_exclusively()
    with pytest.raises(CoordError) as refusal:
        data.lock_exclusively()
    assert Code.DATA_LOCKED is refusal.value.code
    assert f"pid {os.getpid()}" in refusal.value.message
    asked = (
        "import sys; from pathlib import Path; from store.layout import DataDir\n"
        "from coordinator.core.errors import CoordError\n"
        "try: DataDir(Path(sys.argv[1])).lock_exclusively()\n"
        "except CoordError as error: print(error.code)"
    )
    other = subprocess.run([sys.executable, "-c", asked, tmp_path], capture_output=True, text=True, check=True)
    assert "data_locked" == other.stdout.strip()
    lock.release()
    lock.release()
    data.lock_exclusively().release()


def test_a_directory_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    """A file where the directory should be is a mistake of configuration, told with its path."""
    (tmp_path / "file").touch()
    with pytest.raises(CoordError) as refusal:
        DataDir(tmp_path / "file" / "data").make()
    assert Code.BAD_CONFIG is refusal.value.code
    assert "file" in refusal.value.message


def test_a_private_file_is_replaced_whole(tmp_path: Path) -> None:
    """Readers see the old text or the new one; no temporary file stays behind."""
    path = tmp_path / "address"
    write_private(path, "one\n")
    write_private(path, "two\n")
    assert "two\n" == path.read_text()
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert ["address"] == [p.name for p in tmp_path.iterdir()]
    with pytest.raises(FileNotFoundError):
        write_private(tmp_path / "missing" / "address", "x")


def test_the_coordinator_keeps_its_id(tmp_path: Path) -> None:
    """It is made once, and read by every start."""
    home = DiskHome(tmp_path / "data")

    async def name(store: object) -> str:
        return str(store.coordinator_id)  # type: ignore[attr-defined]

    assert home.run(name) == home.run(name) == home.data.read_coordinator_id()
