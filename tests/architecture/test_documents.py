"""The documents name what is there: every path in ARCHITECTURE.md, every test in docs/guarantees.md."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`((?:coordinator|store|analytics|cli|tests|bench|docs)/[\w./*-]*)`")
TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
GUARANTEES = ("G1", "G2", "G3", "G4", "G5", "G6", "G7", "G8", "G9", "G10", "G12", "G13")


def test_every_path_in_the_architecture_exists() -> None:
    named = set(NAMED.findall((ROOT / "ARCHITECTURE.md").read_text()))
    assert len(named) > 20
    for name in sorted(named):
        assert list(ROOT.glob(name.rstrip("/"))), f"ARCHITECTURE.md names {name}"


def test_every_package_of_the_tree_is_in_the_architecture() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    for package in ("coordinator", "store", "analytics", "cli"):
        for child in sorted((ROOT / package).iterdir()):
            if child.is_dir() and (child / "__init__.py").exists():
                assert f"{child.name}/" in text, f"ARCHITECTURE.md does not know {child.relative_to(ROOT)}"


def test_the_architecture_stays_two_pages() -> None:
    assert len((ROOT / "ARCHITECTURE.md").read_text().splitlines()) <= 170


def test_every_guarantee_names_tests_that_exist() -> None:
    text = (ROOT / "docs/guarantees.md").read_text()
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    named = {section.split()[0] for section in sections}
    assert set(GUARANTEES) <= named
    for section in sections:
        found = TEST.findall(section)
        assert found, f"no test stands behind {section.splitlines()[0]}"
        for path, function in found:
            assert (ROOT / path).is_file(), f"{path} is named and not there"
            assert not function or function in _functions(ROOT / path), f"{path} has no {function}"


def _functions(path: Path) -> set[str]:
    return {
        node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
