"""Manifests come from agents: what could not be laid out, or not be kept, is none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from coordinator import manifest
from coordinator.core.data.rows import FileEntry
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import Digest

DIGEST = "a" * 64


def written(*files: dict[str, Any]) -> bytes:
    return json.dumps({"version": 1, "files": [{"digest": DIGEST, "size": 4, **file} for file in files]}).encode()


def test_what_was_written_is_read() -> None:
    """The same files, and the same bytes again; a name that begins like another is no directory of it."""
    paths = ("a", "a-b", "b/a", "b/a.x", "b/c")
    listed = manifest.Manifest(files=tuple(FileEntry(path=path, digest=Digest(DIGEST), size=4) for path in paths))
    assert manifest.decode(manifest.encode(listed)) == listed


@pytest.mark.parametrize(
    "data",
    [
        written({"path": "a", "size": 10**30}),
        written({"path": "a", "size": 2**53}, {"path": "b"}),
        written({"path": "a", "size": -1}),
        written({"path": "a", "digest": "../../x"}),
        written({"path": "a", "digest": DIGEST.upper()}),
        written({"path": "a", "digest": DIGEST + "\n"}),
        written({"path": "a"}, {"path": "a-b"}, {"path": "a/b/c"}),
        written({"path": "b"}, {"path": "a"}),
        written({"path": "a"}, {"path": "a"}),
        written({"path": "../a"}),
        b"[" * 200_000,
    ],
)
def test_what_could_not_be_kept_or_laid_out_is_no_manifest(data: bytes) -> None:
    """Sizes beyond 64 bits, digests that are none, a file that is a directory too, disorder, ways out, depth."""
    with pytest.raises(CoordError) as refused:
        manifest.decode(data)
    assert refused.value.code is Code.BAD_REQUEST
