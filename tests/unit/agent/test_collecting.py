"""Outputs are found where they may be, and nothing is read that the program could not have read itself."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from coordinator.agent import grounds, heavy
from coordinator.agent.collecting import FILE_BYTES_MAX, Collected, NoOutput, collecting
from coordinator.agent.grounds import Ground
from coordinator.agent.hashing import digest
from coordinator.agent.places import Place

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="files of other users need root")


def a_place(root: Path) -> Place:
    place = Place(7, f"{root}/attempts/7", f"{root}/programs/7")
    for path in (place.kept, place.work, *place.variables.values()):
        Path(path).mkdir(parents=True)
    return place


def collect(places: list[Ground], patterns: tuple[str, ...] | list[str], user: int, most: int) -> list[Collected]:
    """All at once."""
    return asyncio.run(heavy.by_turns(collecting(places, patterns, user, most)))


def found(place: Place, *patterns: str, user: int = 0, most: int = 100, directory: str = "") -> dict[str, bytes]:
    """What is collected, by path, read from where it was found."""
    places = [grounds.part(place, "COORD_OUTPUT_DIR"), grounds.working(place, directory, walled=True)]
    files = collect([ground for ground in places if ground is not None], patterns, user, most)
    held = {}
    for file in files:
        with os.fdopen(file.open(), "rb") as opened:
            held[file.path] = opened.read()
        assert (file.digest, file.size) == (digest(held[file.path]), len(held[file.path]))
    return held


def test_patterns_look_beneath_both_directories(tmp_path: Path) -> None:
    """What lies in both is taken from COORD_OUTPUT_DIR; a file that two patterns mean is taken once."""
    place = a_place(tmp_path)
    home, outputs = Path(place.variables["HOME"]), Path(place.variables["COORD_OUTPUT_DIR"])
    (home / "deep" / "er").mkdir(parents=True)
    (home / "deep" / "er" / "a.pt").write_bytes(b"a")
    (home / "both").write_bytes(b"home")
    (outputs / "both").write_bytes(b"outputs")
    (home / "other").write_bytes(b"no")
    got = found(place, "deep/**/*.pt", "**/a.pt", "both")
    assert {"deep/er/a.pt": b"a", "both": b"outputs"} == got


@pytest.mark.parametrize("directory", ["/etc", "../..", "../../8/home", "a/../../.."])
def test_a_working_directory_elsewhere_is_not_read_behind_walls(tmp_path: Path, directory: str) -> None:
    """The agent may read there what the program may not."""
    with pytest.raises(NoOutput):
        found(a_place(tmp_path), "passwd", "**", directory=directory)


def test_a_home_that_became_a_link_is_not_followed(tmp_path: Path) -> None:
    """The program owns the directory that its home is in."""
    place = a_place(tmp_path)
    home = Path(place.variables["HOME"])
    home.rmdir()
    home.symlink_to("/etc")
    with pytest.raises(NoOutput):
        found(place, "passwd")


@pytest.mark.parametrize("pattern", ["../*", "/etc/passwd", "a//b", ""])
def test_what_is_no_pattern_is_no_output(tmp_path: Path, pattern: str) -> None:
    """It was checked when the job was read; whoever sends another is refused all the same."""
    with pytest.raises(NoOutput):
        found(a_place(tmp_path), pattern)


def test_more_files_than_may_be_are_said(tmp_path: Path) -> None:
    """And none of them is hashed."""
    place = a_place(tmp_path)
    for n in range(4):
        (Path(place.variables["HOME"]) / f"f{n}").write_bytes(b"")
    with pytest.raises(NoOutput, match="more than 3 files"):
        found(place, "*", most=3)


@needs_root
def test_a_file_of_another_user_is_no_output(tmp_path: Path) -> None:
    """A hard link to what only others may read is no way to have it."""
    place = a_place(tmp_path)
    secret = Path(place.variables["HOME"]) / "secret"
    secret.write_bytes(b"secret")
    secret.chmod(0o600)
    with pytest.raises(NoOutput, match="another user"):
        found(place, "secret", user=1_900_000_123)
    os.chown(secret, 1_900_000_123, 1_900_000_123)
    assert {"secret": b"secret"} == found(place, "secret", user=1_900_000_123)


def test_checkpoints_are_beneath_the_working_directory(tmp_path: Path) -> None:
    """Or in the directory that is made for them; behind walls in no other."""
    place = a_place(tmp_path)
    assert Ground(f"{tmp_path}/programs", "7/checkpoints") == grounds.checkpoints(place, "", "", walled=True)
    assert Ground(f"{tmp_path}/programs", "7/home/ck") == grounds.checkpoints(place, "", "ck", walled=True)
    assert Ground(f"{tmp_path}/programs", "7/home/run/ck") == grounds.checkpoints(place, "run", "ck", walled=True)
    assert Ground("/data", "ck") == grounds.checkpoints(place, "/data", "ck", walled=False)
    assert grounds.checkpoints(place, "/data", "ck", walled=True) is None


def test_a_file_of_nothing_holds_nobody_up(tmp_path: Path) -> None:
    """A sparse one of a terabyte is given up as soon as its result is not wanted, and others' results come in between;
    more than a blob may have is none."""
    place, other = a_place(tmp_path), a_place(tmp_path / "other")
    ground = grounds.part(place, "COORD_OUTPUT_DIR")
    huge = Path(place.variables["COORD_OUTPUT_DIR"]) / "huge"
    huge.touch()
    os.truncate(huge, 1 << 40)
    (Path(other.variables["COORD_OUTPUT_DIR"]) / "small").write_text("small")

    async def check() -> None:
        works = [
            asyncio.ensure_future(heavy.by_turns(collecting([ground], ["huge"], 0, 1)))
            for _ in range(2 * heavy.THREADS)
        ]
        await asyncio.sleep(0)  # they are in line now
        async with asyncio.timeout(60):
            small = collecting([grounds.part(other, "COORD_OUTPUT_DIR")], ["small"], 0, 1)
            assert ["small"] == [file.path for file in await heavy.by_turns(small)]
            for work in works:
                assert not work.done()
                work.cancel()
            ended = await asyncio.gather(*works, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in ended)

    asyncio.run(check())
    os.truncate(huge, FILE_BYTES_MAX + 1)
    with pytest.raises(NoOutput, match="no more than"):
        collect([ground], ["huge"], 0, 1)


def test_a_file_that_grows_while_it_is_read_is_no_output(tmp_path: Path) -> None:
    """Something that outlived its program appends faster than we read: that is found, and not followed for ever."""
    place = a_place(tmp_path)
    file = Path(place.variables["COORD_OUTPUT_DIR"]) / "log"
    file.write_bytes(bytes(3 << 20))
    with pytest.raises(NoOutput, match="grows"):
        for _ in collecting([grounds.part(place, "COORD_OUTPUT_DIR")], ["log"], 0, 1):
            with file.open("ab") as opened:
                opened.write(bytes(2 << 20))
