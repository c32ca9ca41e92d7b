"""Snapshots of a directory: one moment or none, only what changed, nothing but plain files, bounded."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import pytest

from coordinator import manifest
from coordinator.agent import beneath, snapshots
from coordinator.agent.grounds import Ground
from coordinator.agent.hashing import digest
from coordinator.agent.snapshots import CannotSave, Known, Snapshot, Unquiet
from coordinator.agent.spool import NoRoom, Spool

NOTHING: Known = MappingProxyType({})


class Directory:
    """A directory that is saved, and where its snapshots go."""

    def __init__(self, path: Path, spool_bytes: int = 1 << 30) -> None:
        self.path = path / "checkpoints"
        self.path.mkdir()
        self.ground = Ground(str(path), "checkpoints")
        self.spool = Spool(path, spool_bytes)

    def put(self, **files: bytes) -> None:
        for name, content in files.items():
            (self.path / name).write_bytes(content)

    def take(self, known: Known = NOTHING) -> Snapshot:
        """As soon as it is quiet."""
        until_s = time.monotonic() + 60
        while True:
            try:
                taken = snapshots.take(self.ground, self.spool, known, 0)
            except Unquiet:
                assert time.monotonic() < until_s
                continue
            assert taken is not None
            return taken


def contents(taken: Snapshot) -> dict[str, bytes]:
    """What the snapshot's parcels hold, by path, checked by digest on the way."""
    held: dict[str, bytes] = {}
    for parcel in taken.parcels:
        fd = parcel.source.open()
        with os.fdopen(fd, "rb") as file:
            held[parcel.digest] = file.read()
        assert (digest(held[parcel.digest]), len(held[parcel.digest])) == (parcel.digest, parcel.size)
    listed = manifest.decode(held[taken.manifest])
    return {entry.path: held[entry.digest] for entry in listed.files}


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    return Directory(tmp_path)


def test_a_snapshot_holds_what_the_directory_held(directory: Directory) -> None:
    """Files in directories within, empty ones, and who may be executed; the program goes on changing its own."""
    directory.put(a=b"one", empty=b"")
    (directory.path / "in" / "ner").mkdir(parents=True)
    (directory.path / "in" / "ner" / "run").write_bytes(b"#!")
    (directory.path / "in" / "ner" / "run").chmod(0o755)
    taken = directory.take()
    directory.put(a=b"changed")
    assert {"a": b"one", "empty": b"", "in/ner/run": b"#!"} == contents(taken)
    assert 5 == taken.size
    assert {"in/ner/run"} == {seen.path for seen in taken.scan.files if seen.executable}


def test_the_same_files_give_the_same_manifest(directory: Directory) -> None:
    """Whenever they are taken, whoever wrote them anew."""
    directory.put(a=b"one", b=b"two")
    first = directory.take()
    directory.put(a=b"one", b=b"two")
    assert first.manifest == directory.take().manifest


def test_only_what_changed_is_copied(directory: Directory) -> None:
    """A file that is as it was when it was sent is named again, and its bytes stay where they are."""
    directory.put(large=b"x" * 100_000, small=b"one")
    first = directory.take()
    first.close()
    directory.put(small=b"two")
    second = directory.take(first.known)
    assert {"large": b"x" * 100_000, "small": b"two"} == contents(second)
    assert {"1", "manifest"} == {path.name for path in second.shelf.path.iterdir()}


def test_a_file_that_was_rewritten_in_place_with_the_same_size_is_copied_again(directory: Directory) -> None:
    """Its times tell; its size and its name would not."""
    directory.put(a=b"aaaa")
    first = directory.take()
    with (directory.path / "a").open("r+b") as file:
        file.write(b"bbbb")
    assert {"a": b"bbbb"} == contents(directory.take(first.known))


def _write_generations(path: Path, stop: Callable[[], bool]) -> None:
    """Generation after generation into two files, in place, with pauses that a snapshot begins in."""
    generation = 0
    with (path / "a").open("r+b", buffering=0) as a, (path / "b").open("r+b", buffering=0) as b:
        while not stop():
            generation += 1
            time.sleep(snapshots.QUIET_S + 0.003 * (generation % 8))
            for file in (a, b):
                os.pwrite(file.fileno(), b"%08d" % generation * NUMBERS, 0)


NUMBERS = 300_000


def test_a_program_that_writes_all_the_time_never_yields_a_mixed_snapshot(directory: Directory) -> None:
    """What is saved was there at one moment: whole generations, both files of one, or the second one generation
    behind while the writer was between them. Once it is still, it is saved."""
    directory.put(a=b"%08d" % 0 * NUMBERS, b=b"%08d" % 0 * NUMBERS)
    until_s = time.monotonic() + 2.0
    writer = threading.Thread(target=_write_generations, args=(directory.path, lambda: time.monotonic() > until_s))
    writer.start()
    torn = 0
    while writer.is_alive():
        try:
            snapshot = snapshots.take(directory.ground, directory.spool, {}, 0)
        except Unquiet as error:
            torn += "changed" in str(error)
            continue
        assert snapshot is not None
        a, b = (_generation(content) for content in contents(snapshot).values())
        assert a - b in (0, 1)
        snapshot.close()
    writer.join()
    assert torn > 0, "no snapshot was disturbed while it was taken: this showed nothing"
    held = contents(directory.take())
    assert _generation(held["a"]) == _generation(held["b"]) > 0


def _generation(content: bytes) -> int:
    assert content == content[:8] * NUMBERS, "half of a write"
    return int(content[:8])


def test_a_file_that_was_just_written_is_waited_for(directory: Directory) -> None:
    """Within a tick of the file system's clock a second write would not be seen."""
    directory.put(a=b"one")
    with pytest.raises(Unquiet):
        snapshots.take(directory.ground, directory.spool, {}, 0)
    assert 0 == directory.spool.used


def test_links_and_pipes_are_left_out_and_told(directory: Directory, tmp_path: Path) -> None:
    """What they lead to is not the program's state, and reading it could hand out what it may not read."""
    (tmp_path / "secret").write_text("secret")
    directory.put(a=b"one")
    (directory.path / "link").symlink_to(tmp_path / "secret")
    (directory.path / "to").symlink_to(tmp_path)
    os.mkfifo(directory.path / "fifo")
    taken = directory.take()
    assert {"a": b"one"} == contents(taken)
    assert ("fifo", "link", "to") == taken.scan.left_out


def test_a_directory_that_became_a_link_is_not_followed(directory: Directory, tmp_path: Path) -> None:
    """The program owns the directory's parent, and may put there what it likes."""
    directory.path.rename(tmp_path / "before")
    directory.path.symlink_to("/etc")
    with pytest.raises(beneath.Unsafe):
        snapshots.take(directory.ground, directory.spool, {}, 0)


def test_files_of_the_agreement_are_no_state(directory: Directory) -> None:
    """`.ready` and `.wanted` come and go; the state is the same."""
    directory.put(a=b"one")
    before = directory.take().manifest
    directory.put(**{".ready": b"step=1", ".wanted": b""})
    assert before == directory.take().manifest


def test_too_much_for_the_spool_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    """The bound is of all snapshots together, and it is asked before anything is copied."""
    directory = Directory(tmp_path, spool_bytes=manifest.BYTES_MAX + 1_000)
    directory.put(a=b"x" * 2_000)
    time.sleep(snapshots.QUIET_S)
    with pytest.raises(NoRoom, match="bytes are needed"):
        snapshots.take(directory.ground, directory.spool, {}, 0)
    directory.put(a=b"x" * 500)
    taken = directory.take()
    assert manifest.BYTES_MAX + 500 == directory.spool.used
    taken.close()
    assert 0 == directory.spool.used
    assert [] == list((tmp_path / "spool").iterdir())


def test_more_files_than_a_manifest_holds_are_refused(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reason; nothing is copied."""
    monkeypatch.setattr(snapshots, "FILES_MAX", 3)
    directory.put(a=b"", b=b"", c=b"", d=b"")
    time.sleep(snapshots.QUIET_S)
    with pytest.raises(CannotSave, match="more than 3 files"):
        snapshots.take(directory.ground, directory.spool, {}, 0)
    assert 0 == directory.spool.used
