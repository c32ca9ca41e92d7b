"""The stores that the suite runs on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.homes import DiskHome, Home, MemoryHome


@pytest.fixture(params=["memory", "disk"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    """A fresh home of each kind."""
    return MemoryHome() if request.param == "memory" else DiskHome(tmp_path / "data")
