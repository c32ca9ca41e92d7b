"""Artifacts through the API: bytes that people gave names, and the files of theirs that become such."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from coordinator.api_types.data import ArtifactDetails, ArtifactEntry, ArtifactRequest
from coordinator.api_types.data import Artifacts as ArtifactsAnswer
from coordinator.client.downloads import Wanted, fetch
from coordinator.client.hashing import Moved, digest_of, unreadable
from coordinator.client.requests import Query, Requests, segment, with_query
from coordinator.client.uploads import LocalFile, Uploads

if TYPE_CHECKING:
    from coordinator.client.inputs import Begin, Job, Staged


class Artifacts:
    """An admin may name the `tenant`; without one an admin's own is `default`, and lists are of every tenant."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self.uploads = Uploads(requests)

    def list(
        self, *, name: str | None = None, tenant: str | None = None, limit: int = 100, page: str | None = None
    ) -> ArtifactsAnswer:
        """One page of the artifacts, by name; `name` may hold * and ?."""
        query: Query = {"name": name, "tenant": tenant, "limit": limit, "page": page}
        return self._requests.get("/v1/artifacts", ArtifactsAnswer, query)

    def show(self, name: str, *, tenant: str | None = None) -> ArtifactDetails:
        """One artifact, or stored bytes by their digest (`blake3:HEX`, `sha256:HEX`): what it is and who keeps it."""
        return self._requests.get(_of(name), ArtifactDetails, {"tenant": tenant})

    def name(self, name: str, digest: str, *, executable: bool = False, tenant: str | None = None) -> ArtifactEntry:
        """Give stored bytes a name, which keeps them; what had it before gives way."""
        request = ArtifactRequest(name=name, digest=digest, executable=executable, tenant=tenant)
        return self._requests.post("/v1/artifacts", request, ArtifactEntry)

    def put(
        self, path: Path, name: str | None = None, *, tenant: str | None = None, begin: Begin | None = None
    ) -> ArtifactEntry:
        """Store a file, unless the same bytes are there, and give it a name: its own without one."""
        start = begin or _silent
        try:
            seen = path.stat()
        except OSError as wrong:
            raise unreadable(path, wrong) from wrong
        digest, size = digest_of(path, start("hashing", seen.st_size))
        if self.uploads.missing((digest,), tenant=tenant):
            self.uploads.send(LocalFile(path, digest, size), tenant=tenant, moved=start("uploading", size))
        return self.name(name or path.name, digest, executable=bool(seen.st_mode & 0o100), tenant=tenant)

    def get(
        self,
        name: str,
        root: Path,
        path: str | None = None,
        *,
        tenant: str | None = None,
        force: bool = False,
        begin: Begin | None = None,
    ) -> ArtifactDetails:
        """Have an artifact beneath the directory `root`, under `path` or its own name; verified."""
        found = self.show(name, tenant=tenant)
        named = found.artifact
        wanted = Wanted(
            target=with_query(_of(f"blake3:{found.digest}", "content"), {"tenant": tenant}),
            path=path or (named.name if named is not None else found.digest),
            digest=found.digest,
            size=found.size,
            executable=named is not None and named.executable,
        )
        moved = (begin or _silent)("fetching", found.size)
        fetch(self._requests.transport, wanted, root, force=force, moved=moved)
        return found

    def remove(self, name: str, *, tenant: str | None = None) -> None:
        """Take the name away; the bytes go some time after nobody else keeps them."""
        self._requests.delete(_of(name), {"tenant": tenant})

    def prepare(self, job: Job, base: Path, *, tenant: str | None = None, begin: Begin | None = None) -> Staged:
        """`job` (a job file's model) with the digest of every file of ours that its inputs name, relative to `base`,
        and which of those are not stored yet; nothing is sent."""
        from coordinator.client.inputs import staged

        ready = staged(job, base, lambda name: self.show(name, tenant=tenant), begin or _silent)
        missing = self.uploads.missing([file.digest for file in ready.files], tenant=tenant)
        return ready._replace(files=tuple(file for file in ready.files if file.digest in missing))

    def send(self, ready: Staged, *, tenant: str | None = None, begin: Begin | None = None) -> Job:
        """Store what `prepare` found missing. -> the job, fit for `Jobs.submit`."""
        if ready.files:
            self.uploads.send_all(ready.files, tenant=tenant, moved=(begin or _silent)("uploading", ready.size))
        return ready.job


def _silent(_what: str, _size: int) -> Moved:
    """Nobody looks on."""
    return lambda _moved: None


def _of(name: str, what: str = "") -> str:
    path = f"/v1/artifacts/{segment(name)}"
    return f"{path}/{what}" if what else path
