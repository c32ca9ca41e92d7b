"""A Slurm of one node: the real daemons on ports and directories of their own."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

from tests.acceptance.processes import wait_for

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")


def missing() -> str:
    """Why there is none here, or nothing."""
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    if lacking:
        return f"{', '.join(lacking)}: not installed"
    return "" if os.geteuid() == 0 else "Slurm's daemons are started as root"


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class OneSlurm:
    """Use as a context; `submit` returns a job's number."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.env = {**os.environ, "SLURM_CONF": str(root / "slurm.conf")}
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> OneSlurm:
        root, host = self.root, socket.gethostname()
        (root / "state").mkdir()
        (root / "spool").mkdir()
        key = root / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        controller, node = _free_ports(2)
        (root / "slurm.conf").write_text(f"""\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={root}/munge.sock
SlurmctldPort={controller}
SlurmdPort={node}
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MinJobAge=300
NodeName={host} NodeAddr=127.0.0.1 CPUs={os.cpu_count()} RealMemory=500 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
""")
        files = [f"--{name}={root}/munge.{end}" for name, end in (
            ("key-file", "key"), ("socket", "sock"), ("pid-file", "pid"), ("log-file", "log"), ("seed-file", "seed")
        )]  # fmt: skip
        self._start("munged", "--foreground", "--force", *files)
        wait_for((root / "munge.sock").exists, "munged")
        self._start("slurmctld", "-D", "-f", self.env["SLURM_CONF"])
        self._start("slurmd", "-D", "-f", self.env["SLURM_CONF"])
        wait_for(lambda: "idle" in self.say("sinfo", "-h", "-o", "%T"), "a node that is idle")
        return self

    def __exit__(self, *_: Any) -> None:
        for one in reversed(self._running):
            one.terminate()
        for one in reversed(self._running):
            try:
                one.wait(10.0)
            except subprocess.TimeoutExpired:
                one.kill()
                one.wait()

    def submit(self, script: str, *options: str) -> str:
        return self.say("sbatch", "--parsable", f"--output={self.root}/job-%j.out", *options, "--wrap", script).strip()

    def say(self, *command: str) -> str:
        ran = subprocess.run(
            command, env=self.env, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
        )
        return ran.stdout.decode()

    def when(self, job: str, state: str) -> None:
        """Returns when the job is in this state."""
        wait_for(lambda: state in self.say("squeue", "-h", "-t", "all", "-j", job, "-o", "%T"), f"job {job} {state}")

    def _start(self, *command: str) -> None:
        with (self.root / f"{command[0]}.out").open("wb") as out:
            self._running.append(
                subprocess.Popen(command, env=self.env, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
            )
