"""The direction of the arrows: who may import whom, where things are wired, what the core must never touch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("coordinator", "store", "analytics", "cli")
COMPOSITION_ROOT = "cli/compose.py"
IMPURE = {
    "asyncio", "concurrent", "datetime", "duckdb", "http", "io", "logging", "multiprocessing", "os", "pathlib",
    "random", "secrets", "select", "signal", "socket", "sqlite3", "subprocess", "sys", "tempfile", "threading",
    "time", "urllib", "uuid", "uvloop", "aiohttp",
}  # fmt: skip
IMPURE_CALLS = {"open", "print", "input", "id", "hash", "globals", "breakpoint", "eval", "exec", "__import__"}


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports_of(path: Path) -> set[str]:
    """Full names of what a file imports, lazily or not."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, f"{path} imports relatively"
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def test_the_import_contracts_hold() -> None:
    """pyproject's contracts, by import-linter."""
    ran = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert 0 == ran.returncode, ran.stdout[-4_000:]


def test_the_core_imports_nothing_of_ours_but_itself() -> None:
    """Also of modules that are newer than the contract that lists what it must not."""
    for path in sources("coordinator/core"):
        ours = {name for name in imports_of(path) if name.split(".")[0] in PACKAGES}
        assert set() == {name for name in ours if name.split(".")[1:2] != ["core"]}, path


@pytest.mark.parametrize("path", sources("coordinator/core"), ids=lambda path: path.stem)
def test_the_core_is_pure(path: Path) -> None:
    """No I/O, no clock, no dice, no logging, no await: neither imported nor called."""
    taken = {name.split(".")[0] for name in imports_of(path)}
    assert set() == taken & IMPURE
    for node in ast.walk(ast.parse(path.read_text())):
        assert not isinstance(node, ast.Await | ast.AsyncFunctionDef | ast.AsyncFor | ast.AsyncWith | ast.Global)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in IMPURE_CALLS, f"{path.name}:{node.lineno} calls {node.func.id}"


@pytest.mark.parametrize("path", sources("coordinator/core"), ids=lambda path: path.stem)
def test_the_core_keeps_no_state_of_its_own(path: Path) -> None:
    """Module level holds constants and definitions: nothing mutable that would outlive a ClusterState."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            mutable = isinstance(node.value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp)
            assert not mutable, f"{path.name}:{node.lineno}"


def test_only_the_core_changes_its_state() -> None:
    """Others read `engine.state`; whoever assigns into it, or calls what changes it, is found by its words."""
    changing = {"put_token", "remove_token", "add_provider", "remove_provider", "review_at", "due", "restore_wheel"}
    for package in PACKAGES:
        for path in sources(package):
            if "core" in path.parts or "simulator" in path.parts:
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Attribute) and node.attr in changing:
                    raise AssertionError(f"{path.relative_to(ROOT)}:{node.lineno} uses {node.attr}")


def test_there_is_one_composition_root() -> None:
    """Only cli/compose.py brings the service together with implementations of its ports."""
    for path in sources("cli"):
        made = {
            node.func.id
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        here = path.relative_to(ROOT).as_posix()
        if here == COMPOSITION_ROOT:
            assert {"Engine", "WorkerLink"} <= made, "the composition root makes the engine and the worker's link"
        else:
            assert set() == made & {"Engine", "AgentLinks", "Server", "WorkerLink"}, f"{here} wires the service too"


def test_only_the_entry_reads_the_environment() -> None:
    """coordinator, store and analytics take settings; the agent's own process may look at its machine."""
    for package in ("coordinator/core", "coordinator/service", "store"):
        for path in sources(package):
            text = path.read_text()
            assert "os.environ" not in text and "getenv" not in text, path
