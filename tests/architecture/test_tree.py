"""The tree: packages are packages, names say something, bounds are stated, nothing knows this machine."""

from __future__ import annotations

import re
import subprocess
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("coordinator", "store", "analytics", "cli")
SAY_NOTHING = {"utils", "util", "helpers", "helper", "common", "misc", "base", "manager", "stuff", "lib"}
LINES_MAX = 700
COUNTED_ELSEWHERE = {"store/readers.py": "holds the pool's own connections, as many as its size"}


def committed() -> list[Path]:
    """Files under version control; every file where there is no repository."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout: what is committed cannot be told")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def texts() -> list[tuple[str, str]]:
    found = []
    for path in committed():
        try:
            found.append((path.relative_to(ROOT).as_posix(), path.read_text()))
        except UnicodeDecodeError:
            continue
    return found


def test_every_folder_with_code_is_a_package() -> None:
    for top in (*PACKAGES, "tests", "bench"):
        for path in (ROOT / top).rglob("*.py"):
            assert (path.parent / "__init__.py").exists(), f"{path.parent.relative_to(ROOT)} has no __init__.py"


def test_every_file_names_its_subject() -> None:
    for path in committed():
        assert path.stem not in SAY_NOTHING, path
        assert path.parent.name not in SAY_NOTHING, path


def test_files_stay_short() -> None:
    """One idea a file: the longest is far from the thousands that a state with methods grows to."""
    for name, text in texts():
        if name.endswith(".py"):
            assert text.count("\n") <= LINES_MAX, f"{name} has {text.count(chr(10))} lines"


def test_marks_that_choose_when_a_test_runs_stand_where_they_are_looked_for() -> None:
    """`make test` finds the files by the text, and leaves these tests out everywhere else: a mark that is put on in
    another way would mean that its tests are never run."""
    marks = re.compile(r"mark\.(paced|alone)|getattr\(pytest\.mark|from pytest import")
    for name, text in texts():
        if name.startswith("tests/") and name.endswith(".py") and not name.endswith("/test_tree.py"):
            found = {one.group(0) for one in marks.finditer(text)}
            if not Path(name).name.startswith("test_"):
                assert set() == found, name
            assert found <= {"mark.paced", "mark.alone"}, name


def test_every_module_says_what_it_owns() -> None:
    for name, text in texts():
        if name.endswith(".py") and text.strip() and name.split("/")[0] in PACKAGES:
            assert text.lstrip().startswith('"""'), f"{name} has no docstring"


def test_nothing_committed_names_a_machine() -> None:
    """No absolute path of the checkout, of what it lies in, or of the home of who wrote it."""
    places = {f"{place}/" for place in (ROOT, ROOT.parent, Path.home()) if len(place.parts) > 1}
    for name, text in texts():
        for place in places:  # `core/work/` is no absolute path
            assert re.search(rf"(?<![\w.-]){re.escape(place)}", text) is None, f"{name} names {place}"


def test_no_unfinished_work_is_committed() -> None:
    mark = re.compile(r"\b(?:" + "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3)) + r")\b")
    for name, text in texts():
        if name.endswith((".py", ".toml", ".sql")):
            assert mark.search(text) is None, name


def test_no_task_is_left_to_itself() -> None:
    """A task belongs to a TaskGroup or to an object that surfaces its failure: asyncio.create_task is nobody's."""
    for name, text in texts():
        if name.endswith(".py") and name.split("/")[0] in PACKAGES:
            assert "asyncio.create_task(" not in text, name


def test_every_queue_in_the_service_has_a_bound() -> None:
    """asyncio.Queue() and queue.Queue() without a size grow for ever, unless what goes in is counted elsewhere."""
    for name, text in texts():
        if name.endswith(".py") and name.split("/")[0] in PACKAGES and name not in COUNTED_ELSEWHERE:
            assert re.search(r"\bQueue(?:\[[^\]]*\])?\(\s*\)", text) is None, name


def test_the_wheel_holds_exactly_the_four_packages(tmp_path: Path) -> None:
    """Built by the declared back end from what is committed, then opened."""
    build_meta = pytest.importorskip("setuptools.build_meta", reason="setuptools is not installed here")
    copy = tmp_path / "source"
    for path in committed():
        target = copy / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    wheel = _build(build_meta.__name__, copy, tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (entry_points,) = [name for name in names if name.endswith("entry_points.txt")]
        assert "coord = cli.main:main" in archive.read(entry_points).decode()
    tops = {name.split("/")[0] for name in names if not name.split("/")[0].endswith(".dist-info")}
    assert set(PACKAGES) == tops
    committed_modules = {
        path.relative_to(ROOT).as_posix() for path in committed() if path.relative_to(ROOT).parts[0] in PACKAGES
    }
    wanted = {name for name in committed_modules if name.endswith((".py", ".sql"))}
    assert set() == wanted - set(names), "committed, and not in the wheel"


def _build(back_end: str, source: Path, into: Path) -> Path:
    import sys

    code = f"import {back_end} as b; print('wheel:' + b.build_wheel({str(into)!r}))"
    built = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=source, capture_output=True, text=True)
    assert 0 == built.returncode, built.stderr[-3_000:]
    name = next(line for line in built.stdout.splitlines() if line.startswith("wheel:"))
    return into / name.removeprefix("wheel:")
