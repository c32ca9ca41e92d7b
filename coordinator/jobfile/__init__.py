"""The job file: one model for TOML on disk and JSON over HTTP, made into the core's JobSpec. Pure.

docs/reference/jobfile.md tells every field in words; `model` has them as structs.
"""

from coordinator.jobfile.describe import describe
from coordinator.jobfile.lines import line_of
from coordinator.jobfile.parse import parse_job, tenant_of
from coordinator.jobfile.problems import JobError

__all__ = ["JobError", "describe", "line_of", "parse_job", "tenant_of"]
