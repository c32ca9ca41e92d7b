"""What a check looks for in stored traces."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from store.traces.files import JobTraces
from store.traces.frames import BadFrame
from store.traces.places import jobs_with_traces


def check_traces(root: Path, problems: list[str]) -> int:
    """Count the files of traces; `problems` gets those that are damaged. Reads all of them once."""
    files = 0
    for job_id, _ in jobs_with_traces(root):
        job = JobTraces(root, job_id)
        with ExitStack() as stack:
            files += len(job.sizes())
            for part in job.parts(stack, problems.append):
                try:
                    part.frame.check()
                except BadFrame as error:
                    problems.append(f"traces/{job.path.relative_to(root)}/{part.name} is damaged: {error}")
    return files
