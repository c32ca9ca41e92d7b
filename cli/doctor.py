"""`coord doctor`: is this machine fit to run a coordinator, and what to do where it is not. Changes nothing."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import stat
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
from msgspec import Struct

from cli import exits, humane, output
from cli.config import Config
from cli.options import config_option, data_option, given, local_address, output_option
from cli.settings import ServeSettings
from coordinator.core.errors import CoordError

GOOD, WARN, BAD = "ok", "warning", "problem"
DISK_FREE_BAD = 256 * 2**20
DISK_FREE_WARN = 2 * 2**30
FSYNC_TRIES = 15
FSYNC_WARN_MS = 30.0
NOFILE_WARN = 4096
TRIAL_S = 20.0
"""For a program in a sandbox to look around."""
CERTIFICATE_LEFT_WARN_S = 14 * 86400.0
CLOCK_SYNCED_BELOW = 5  # adjtimex: 5 is TIME_ERROR, "clock not synchronised"


class Finding(Struct, frozen=True, kw_only=True):
    """What one check found. `state`: ok, warning or problem; `todo` is empty when all is well."""

    check: str
    state: str
    found: str
    todo: str = ""


class Findings(Struct, frozen=True, kw_only=True):
    entries: tuple[Finding, ...]


COLUMNS = (
    output.Column("CHECK", lambda f: f.check),
    output.Column("STATE", lambda f: f.state, colour=lambda f: {GOOD: "32", WARN: "33", BAD: "31"}[f.state]),
    output.Column("FOUND", lambda f: f.found, whole=True),
    output.Column("TO DO", lambda f: f.todo, wide=True),
)


@click.command(short_help="Check this machine, and say what to do.")
@data_option
@config_option
@output_option
def doctor(data: Path | None, config_file: Path | None, output: output.Format) -> int:
    """Check Python, the databases' libraries, disk, clock, port, permissions and limits, and what an agent here could
    do for its attempts. Changes nothing.

    Exit status 1 when there is a problem; warnings are no problems.

    \b
    coord doctor
    coord doctor --data /srv/coord -o json
    """
    config = Config(file=config_file, flags=given(data=("--data", data)))
    return report(tuple(examine(config)), output)


def report(findings: tuple[Finding, ...], form: output.Format) -> int:
    """Print the findings, then what to do, and return the exit status."""
    output.listing(Findings(entries=findings), COLUMNS, form, name=lambda f: str(f.check))
    if form == "table" and any(f.todo for f in findings):
        sys.stdout.write("\nto do:\n")
        for finding in findings:
            if finding.todo:
                sys.stdout.write(f"  {finding.check}: {finding.todo}\n")
    return exits.FOUND_PROBLEMS if any(f.state == BAD for f in findings) else exits.OK


def examine(config: Config) -> Iterator[Finding]:
    """All checks, one after the other. A check that fails by itself is a problem, not the end."""
    data = config.data()
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("settings", lambda: _settings(config)),
        ("python", _python),
        ("sqlite", _sqlite),
        ("duckdb", _duckdb),
        ("data directory", lambda: _permissions(data)),
        ("disk space", lambda: _space(data)),
        ("disk fsync", lambda: _fsync(data)),
        ("clock", _clock),
        ("address", lambda: _address(config, data)),
        ("tls", lambda: _tls(config)),
        ("open files", _files),
        ("isolation", _isolation),
        ("processes", _processes),
    ]
    for name, check in checks:
        try:
            yield check()
        except CoordError as refused:
            yield Finding(check=name, state=BAD, found=refused.message, todo=refused.hint)
        except (OSError, ImportError) as failed:
            yield Finding(check=name, state=BAD, found=str(failed), todo="see the message; coord cannot run like this")


def _settings(config: Config) -> Finding:
    changed = [one for one in config.shown() if one.origin != "default"]
    where = str(config.file) if config.file else "no file"
    return Finding(check="settings", state=GOOD, found=f"{where}, {len(changed)} not at their default")


def _python() -> Finding:
    found = f"{sys.version.split()[0]} on {sys.platform}"
    if not sys.platform.startswith("linux"):
        return Finding(check="python", state=BAD, found=found, todo="coord runs on Linux")
    return Finding(check="python", state=GOOD, found=found)


def _sqlite() -> Finding:
    from store.sqlite import sqlite3  # importing it refuses a library that can lose data

    return Finding(check="sqlite", state=GOOD, found=sqlite3.sqlite_version)


def _duckdb() -> Finding:
    import duckdb

    duckdb.connect(":memory:").execute("SELECT 1").fetchall()
    return Finding(check="duckdb", state=GOOD, found=str(duckdb.__version__))


def _permissions(data: Path) -> Finding:
    if not data.exists():
        parent = _existing(data)
        if os.access(parent, os.W_OK | os.X_OK) and _holds_files(parent):
            return Finding(check="data directory", state=GOOD, found=f"{data} is not there yet, and can be made")
        todo = f"make it, owned by the user who runs coord, or choose another: --data (now: {parent} takes no files)"
        return Finding(check="data directory", state=BAD, found=f"{data} cannot be made", todo=todo)
    info = data.stat()
    if info.st_uid != os.geteuid() and os.geteuid() != 0:
        todo = "run coord as that user"
        return Finding(check="data directory", state=BAD, found=f"{data} belongs to uid {info.st_uid}", todo=todo)
    loose = [path for path in (data, *sorted(data.glob("tokens/*"))) if stat.S_IMODE(path.stat().st_mode) & 0o077]
    if loose:
        todo = f"chmod go= {' '.join(str(path) for path in loose[:4])}"
        return Finding(check="data directory", state=BAD, found=f"others can read {loose[0]}", todo=todo)
    return Finding(check="data directory", state=GOOD, found=str(data))


def _holds_files(directory: Path) -> bool:
    """Whether a file can be made there: the permissions of /proc say yes, and it takes none."""
    try:
        with tempfile.TemporaryFile(dir=directory):
            return True
    except OSError:
        return False


def _space(data: Path) -> Finding:
    free = shutil.disk_usage(_existing(data)).free
    found = f"{free / 1e9:.1f} GB free"
    if free < DISK_FREE_BAD:
        return Finding(check="disk space", state=BAD, found=found, todo="free some: a full disk stops new decisions")
    if free < DISK_FREE_WARN:
        return Finding(check="disk space", state=WARN, found=found, todo="a fleet of 1,000 needs about 1 GB a month")
    return Finding(check="disk space", state=GOOD, found=found)


def _fsync(data: Path) -> Finding:
    """How long the disk takes to make one page safe: every acknowledged change waits for it."""
    if not _holds_files(_existing(data)):
        todo = "choose another place for the data directory: --data"
        return Finding(check="disk fsync", state=BAD, found=f"{_existing(data)} takes no files", todo=todo)
    took_ms = []
    with tempfile.TemporaryFile(dir=_existing(data)) as file:
        for _ in range(FSYNC_TRIES):
            file.write(b"\0" * 4096)
            file.flush()
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            took_ms.append(1000 * (time.perf_counter() - began))
    middle = statistics.median(took_ms)
    found = f"{middle:.2f} ms (median of {FSYNC_TRIES})"
    if middle > FSYNC_WARN_MS:
        todo = "changes are acknowledged this slowly; put the data directory on a faster disk"
        return Finding(check="disk fsync", state=WARN, found=found, todo=todo)
    return Finding(check="disk fsync", state=GOOD, found=found)


def _clock() -> Finding:
    """Asks the kernel whether the clock is disciplined (adjtimex, reading only)."""
    libc = ctypes.CDLL(None, use_errno=True)
    state = libc.adjtimex(ctypes.create_string_buffer(512))
    if state < 0:
        return Finding(check="clock", state=WARN, found="the kernel does not say", todo="run a time service (NTP)")
    if state >= CLOCK_SYNCED_BELOW:
        todo = "run a time service (NTP); deadlines do not depend on it, times that people read do"
        return Finding(check="clock", state=WARN, found="not synchronised", todo=todo)
    return Finding(check="clock", state=GOOD, found="synchronised")


def _address(config: Config, data: Path) -> Finding:
    settings = config.section("serve", ServeSettings)
    host, _, port = settings.listen.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), int(port)))
        except OSError as taken:
            ours = local_address(data, quiet=True)
            if ours.endswith(f":{port}"):
                return Finding(check="address", state=GOOD, found=f"{ours} is in use, by this data directory's server")
            todo = "choose another with --listen HOST:PORT, or stop what uses it"
            return Finding(check="address", state=BAD, found=f"{settings.listen}: {taken.strerror}", todo=todo)
    return Finding(check="address", state=GOOD, found=f"{settings.listen} is free")


def _tls(config: Config) -> Finding:
    """Whether certificate and key fit together, and how long the certificate is valid."""
    settings = config.section("serve", ServeSettings)
    if settings.tls_cert is None and settings.tls_key is None:
        return Finding(check="tls", state=GOOD, found="not used: tokens stay on this machine")
    from cryptography import x509

    from coordinator.service.server import ServerSettings, tls_context

    tls_context(ServerSettings(tls_cert=str(settings.tls_cert or ""), tls_key=str(settings.tls_key or "")))
    assert settings.tls_cert is not None
    ends = x509.load_pem_x509_certificate(settings.tls_cert.read_bytes()).not_valid_after_utc
    left_s = (ends - datetime.now(UTC)).total_seconds()
    found = f"{settings.tls_cert}, valid for {humane.length(left_s)}"
    if left_s < CERTIFICATE_LEFT_WARN_S:
        return Finding(check="tls", state=BAD if left_s < 0 else WARN, found=found, todo="renew it, with the same key")
    return Finding(check="tls", state=GOOD, found=found)


def _files() -> Finding:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"{soft} (may be raised to {hard})"
    if hard < NOFILE_WARN:
        todo = f"an agent needs one each: raise the limit (ulimit -n, LimitNOFILE=) above {NOFILE_WARN}"
        return Finding(check="open files", state=WARN, found=found, todo=todo)
    return Finding(check="open files", state=GOOD, found=found)


def _isolation() -> Finding:
    """What an agent on this machine could give its attempts: each level is tried, as an agent does it at its start."""
    import json
    import subprocess

    argv = (sys.executable, "-P", "-m", "cli.trial")
    try:
        done = subprocess.run(argv, capture_output=True, timeout=TRIAL_S, check=True)  # noqa: S603  ourselves
        why = json.loads(done.stdout)
    except (subprocess.SubprocessError, ValueError) as failed:
        return Finding(check="isolation", state=WARN, found=f"it could not be tried: {failed}", todo="see the message")
    if not why["sandbox"]:
        return Finding(check="isolation", state=GOOD, found="an agent here can give each attempt a sandbox")
    todo = f"a sandbox cannot be given: {why['sandbox']}; without it an agent serves one tenant at a time"
    if not why["uid"]:
        return Finding(check="isolation", state=WARN, found="an agent here can give each attempt a user id", todo=todo)
    return Finding(check="isolation", state=WARN, found="an agent here isolates nothing", todo=todo)


def _processes() -> Finding:
    """Whether an agent here reaches every process of an attempt for certain."""
    from coordinator.agent.cgroup import CgroupHome

    with tempfile.TemporaryDirectory(prefix="coord-doctor-") as place:
        home = CgroupHome.find(Path(place))
        if home is not None:
            home.close()
            return Finding(
                check="processes", state=GOOD, found="cgroup v2: freezing and killing reach all of an attempt"
            )
    todo = "run the agent in a cgroup of its own that it may divide (systemd: Delegate=yes)"
    return Finding(check="processes", state=WARN, found="no cgroup v2: processes are followed by /proc", todo=todo)


def _existing(path: Path) -> Path:
    """The nearest directory above that is there."""
    while not path.exists():
        path = path.parent
    return path
