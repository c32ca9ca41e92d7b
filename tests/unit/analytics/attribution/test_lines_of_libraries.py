"""Single lines as programs print them: those that look bad and are not, and those whose cause is easily mistaken."""

from __future__ import annotations

import pytest

from analytics.attribution.engine import End
from coordinator.core.verdict.rows import Cause, Recommendation
from tests.unit.analytics.attribution.told import verdict_on

STOP = Recommendation.STOP
RESTART = Recommendation.RESTART
ELSEWHERE = Recommendation.RESTART_ELSEWHERE

HARMLESS = (
    # reports and settings
    "            Double Bit ECC              : N/A\n        Remapping Failure Occurred  : No",
    "  MemoryPressure   False   KubeletHasSufficientMemory\n  DiskPressure     False   KubeletHasNoDiskPressure",
    "Registered signal handlers for SIGINT and SIGTERM",
    "Installing signal handlers SIGINT, SIGSEGV",
    "best_val_loss=inf",
    "Preempted: 0, Running: 3",
    "GET http://169.254.169.254/latest/meta-data/spot/instance-action -> 404",
    "maintenance event: NONE",
    "Evicted 12 entries from the cache",
    "Cache Eviction policy: LRU",
    # what goes on all the same
    "E cuda_driver.cc:266] failed call to cuInit: CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected",
    "ERROR: ld.so: object '/opt/libjemalloc.so' from LD_PRELOAD cannot be preloaded "
    "(cannot open shared object file): ignored.",
    "acme 1.0 requires torch<2.1,>=1.7, but you have torch 2.1.0 which is incompatible.\nSuccessfully installed torch",
    "fatal: not a git repository (or any of the parent directories): .git",
    "Error caught was: No module named 'triton'",
    "acme/old.py: please upgrade to the newest version",
    "NCCL INFO Call to connect returned Connection refused, retrying\nNCCL INFO Connected all rings",
    # at the end of programs in Fortran
    "Note: The following floating-point exceptions are signalling: IEEE_DENORMAL\nSTOP 0",
    # hardware that mended itself
    "mce: [Hardware Error]: Corrected error, no action required.",
    "{1}[Hardware Error]: event severity: corrected\n{1}[Hardware Error]:  section_type: memory error",
)

MISTAKEN = (
    (
        "torch.distributed.DistNetworkError: The server socket has failed to listen on any local network address. "
        "port: 29500, code: -98, name: EADDRINUSE, message: address already in use",
        Cause.PORT_IN_USE,
        RESTART,
    ),
    ("ImportError: /lib/libgomp.so.1: cannot allocate memory in static TLS block", Cause.ENV_DEPENDENCY, STOP),
    ("java.lang.OutOfMemoryError: unable to create new native thread", Cause.CONFIG_ERROR, STOP),
    ("NCCL WARN Call to ibv_reg_mr failed with error Cannot allocate memory", Cause.CONFIG_ERROR, ELSEWHERE),
    ("OSError: [Errno 28] No space left on device: '/dev/shm/sem.loky-1'", Cause.STORAGE_FS, RESTART),
    ("RuntimeError: unable to write to file </torch_47_12_0>: No space left on device (28)", Cause.STORAGE_FS, RESTART),
    ("sqlite3.OperationalError: database is locked", Cause.STORAGE_FS, RESTART),
    # asked too often: later it answers again
    (
        "ResourceExhausted: 429 Quota exceeded for quota metric 'Read requests' and limit 'Read requests per minute'",
        Cause.EXTERNAL_SERVICE,
        RESTART,
    ),
    ("ClientError: An error occurred (RequestLimitExceeded) when calling it", Cause.EXTERNAL_SERVICE, RESTART),
    ("urllib.error.HTTPError: HTTP Error 403: rate limit exceeded", Cause.EXTERNAL_SERVICE, RESTART),
    ("google.api_core.exceptions.TooManyRequests: 429 GET https://x", Cause.EXTERNAL_SERVICE, RESTART),
    ("google.api_core.exceptions.ServiceUnavailable: 503 no", Cause.EXTERNAL_SERVICE, RESTART),
    ("google.api_core.exceptions.RetryError: Deadline of 120.0s exceeded", Cause.EXTERNAL_SERVICE, RESTART),
    ("openai.RateLimitError: Error code: 429 - You exceeded your current quota", Cause.QUOTA, STOP),
    ("StatusCode.RESOURCE_EXHAUSTED: Received message larger than max (5 vs. 4)", Cause.CONFIG_ERROR, STOP),
    # a network that is away is no wrong name
    ("huggingface_hub.errors.LocalEntryNotFoundError: check your connection", Cause.EXTERNAL_SERVICE, RESTART),
    ("huggingface_hub.errors.EntryNotFoundError: 404 Client Error.", Cause.CONFIG_ERROR, STOP),
    ("AssertionError: Image Not Found /data/images/1.jpg", Cause.DATA_ERROR, STOP),
    ("requests.exceptions.HTTPError: unexpected status code 404", Cause.USER_CODE, STOP),
    ('Error: image "acme/train:v1" not found', Cause.IMAGE_PULL, STOP),
    ("xml.etree.ElementTree.ParseError: not well-formed (invalid token): line 1", Cause.DATA_ERROR, STOP),
    ("SyntaxError: invalid token", Cause.USER_CODE, STOP),
    ("train.sh: line 5: syntax error: unexpected end of file", Cause.USER_CODE, STOP),
    ("ValueError: batch_size should be a positive integer value, but got 0", Cause.CONFIG_ERROR, STOP),
    # graphics cards
    ("NVRM: Xid (PCI:0000:3b:00): 94, pid=77, Contained: SM (0x1). RST: No", Cause.GPU_HARDWARE, RESTART),
    ("NVRM: Xid (PCI:0000:3b:00): 169, pid=0, halt", Cause.GPU_HARDWARE, ELSEWHERE),
    ("torch.OutOfMemoryError: Allocation on device", Cause.GPU_OOM, STOP),
    (
        "ValueError: Free memory on device (10.0/79.1 GiB) on startup is less than desired GPU memory utilization",
        Cause.GPU_HARDWARE,
        ELSEWHERE,
    ),
    (
        "RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 803: system has unsupported display driver",
        Cause.ENV_DEPENDENCY,
        ELSEWHERE,
    ),
    (
        "RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 101: invalid device ordinal",
        Cause.ENV_DEPENDENCY,
        ELSEWHERE,
    ),
    ("mce: [Hardware Error]: CPU 3: Machine Check Exception: 5 Bank 4: b2", Cause.NODE_FAILURE, ELSEWHERE),
    ("{1}[Hardware Error]: event severity: fatal", Cause.NODE_FAILURE, ELSEWHERE),
    # others
    ("duckdb.OutOfMemoryException: Out of Memory Error: failed to allocate data", Cause.HOST_OOM, STOP),
    (
        "TerminatedWorkerError: A worker process was unexpectedly terminated. This could be caused by a "
        "segmentation fault or by an excessive memory usage",
        Cause.PROCESS_KILLED_UNKNOWN,
        RESTART,
    ),
    ("trainer-0   0/1     Evicted   0          3m", Cause.NODE_PRESSURE_EVICTION, RESTART),
    ("Warning  Evicted  3m  kubelet  The node was low on memory", Cause.NODE_PRESSURE_EVICTION, RESTART),
    (
        "ValueError: Expected parameter logits of distribution Categorical to satisfy the constraint "
        "IndependentConstraint(Real(), 1), but found invalid values:",
        Cause.NUMERICAL_NAN,
        STOP,
    ),
    ("GCP Metadata Service says termination is imminent", Cause.PREEMPTION, RESTART),
    ("Received signal: SIGINT", Cause.USER_CANCELLED, STOP),
)


@pytest.mark.parametrize("log", HARMLESS)
def test_a_line_that_only_looks_bad_is_no_alarm(log: str) -> None:
    """Nobody says how the program ended, and the line alone is no reason to think that it failed."""
    assert Recommendation.OK == verdict_on(f"{log}\nhello\n").recommendation


@pytest.mark.parametrize(("log", "cause", "action"), MISTAKEN)
def test_a_line_is_not_taken_for_another_cause(log: str, cause: Cause, action: Recommendation) -> None:
    """Of several rows that could know it the one that is right does."""
    verdict = verdict_on(f"{log}\n", end=End(code=1))
    assert (cause, action) == (verdict.cause, verdict.recommendation)


@pytest.mark.parametrize("said", ["Job finished at Mon Jan 1 10:00:00", "All done", "process ended normally"])
def test_what_a_script_says_at_its_end_does_not_take_a_traceback_back(said: str) -> None:
    """A batch script goes on after the program that failed, and tells that it is through."""
    log = 'Traceback (most recent call last):\n  File "train.py", line 7, in <module>\n    main()\nValueError: no\n'
    assert Cause.USER_CODE == verdict_on(f"{log}{said}\n").cause


def test_a_state_that_was_not_saved_is_no_checkpoint() -> None:
    """What comes after it would otherwise be tried again from there."""
    assert 0 == verdict_on("Checkpoint was not saved\nKeyError: 'loss'\n", end=End(code=1)).progress.checkpoints
