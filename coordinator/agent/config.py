"""What an agent is told, and how patient it is. The CLI fills AgentConfig; nothing here reads files or environment."""

from __future__ import annotations

from msgspec import Struct

from coordinator import wire
from coordinator.agent.exits import AgentStop, Exit
from coordinator.core.errors import CoordError
from coordinator.core.ids import check_name

ISOLATIONS = ("auto", "none", "uid", "sandbox")


class AgentConfig(Struct, frozen=True, kw_only=True):
    """Everything that `coord agent` may be told. Secrets are here as text, never in argv, URL or environment."""

    state_dir: str
    """Keeps identity, lock and control socket; made with mode 0700."""
    coordinator: str = ""
    """URL, http(s)://HOST[:PORT]; empty: the one that the identity remembers."""
    provider_id: str = ""
    """Empty: the one enrolled; before that, made from the host's name."""
    pool: str = ""
    """Empty: the join token's, else the default pool. Counts at enrolment alone."""
    labels: dict[str, str] = {}
    cpus: float | None = None
    """Instead of what was detected; likewise the next two."""
    memory_gb: float | None = None
    gpus: tuple[str, ...] | None = None
    named: dict[str, float] = {}
    """Whatever else is counted here, by name, with its amount: licences, slots of a device; `--named`."""
    join_token: str = ""
    """Needed once, to enrol."""
    ca: str = ""
    """File of certificates to trust, PEM. It goes before a pinned key."""
    insecure: bool = False
    """Plain http beyond loopback is allowed."""
    work_dir: str = ""
    """Where the programs of attempts have their directories; empty: `work` in the state directory; `--work`."""
    isolation: str = "auto"
    """The most that attempts get: `none`, `uid`, `sandbox`, or `auto`: what this machine can give; `--isolation`."""
    log_bytes_max: int = 1 << 30
    """Of each stream of an attempt whose job names no bound; `--log-max`."""
    cpu_limit: bool = True
    """No attempt takes more CPU time than it asked for, where cgroups can see to it; `--no-cpu-limit`: what is idle."""
    hide: tuple[str, ...] = ()
    """More directories that a sandbox hides, beside the agent's own; `--hide`."""
    cache_bytes_max: int = 20 << 30
    """Of the blobs that are kept here for the next attempt; the least recently used go first; `--cache`."""
    fetch_at_once: int = 8
    """Transfers of inputs and checkpoints at a time, over all attempts; `--fetch-at-once`."""
    stage_still_s: float = 1_800.0
    """An attempt whose inputs are being brought, and of which no byte moves for so long, is given up here."""
    trace: bool = True
    """Programs are told of their trace, and what they and this agent trace is sent to the coordinator; `--no-trace`."""
    log_level: str = "info"


class Patience(Struct, frozen=True, kw_only=True):
    """Every wait of the agent: unit in the name, default, reason. Only tests change them."""

    connect_s: float = 10.0
    """For a TCP connection, TLS and the upgrade together; also for an enrolment."""
    welcome_s: float = 15.0
    """From hello to welcome: the coordinator may first ask an older connection for a sign of life (5 s)."""
    bye_s: float = 3.0
    """From bye to the coordinator's close."""
    close_s: float = 1.0
    """For the closing handshake of a connection that is given up."""
    retry_ceilings_s: tuple[float, ...] = (2.5, 5.0, *(10.0,) * 8, 20.0, 30.0)
    """The n-th wait is drawn from 0 to the n-th of these, the last one from then on. Ten seconds at most in
    the first tries: a fleet whose coordinator restarts within a quarter of a minute is back ten seconds after it."""
    later_s: float = 30.0
    """Added to the wait after a close that trying again at once would only repeat."""
    steady_s: float = 10.0
    """A session that lasted so long was a success: the next loss starts with the first ceiling again."""
    pulse_s: float = 2.0
    """The daemon shows the keeper this often that its loop turns."""
    stuck_s: float = 20.0
    """A daemon without a pulse for so long is replaced: well before the coordinator counts the provider as lost."""
    start_s: float = 60.0
    """For its first pulse: where programs keep a machine busy that takes long, and killed for it none would get up."""
    restart_ceilings_s: tuple[float, ...] = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
    """The keeper waits between half of it and all of it before it starts the daemon for the n-th time in a row."""
    restart_steady_s: float = 60.0
    """A daemon that lived so long did not fail at its start."""
    start_failures_max: int = 5
    """So many daemons in a row that died before their first pulse: the agent gives up."""
    end_s: float = 10.0
    """The grace of attempts when the agent leaves; a shorter one of their own counts."""
    report_s: float = 3.0
    """For their ends to be settled by the coordinator, before the good-bye."""
    send_s: float = 120.0
    """For results and last checkpoints that are on their way when the agent leaves; the next one goes on with them."""
    kept_frozen_s: float = wire.KEPT_FROZEN_S
    """What was not renewed for so long is killed: its successor has run for a day."""
    leave_s: float = 5.0
    """The keeper gives the daemon so long for its good-bye, then kills it."""


def check_config(config: AgentConfig) -> None:
    """Raise AgentStop(CONFIG) for what the coordinator would refuse anyway, before anything was done."""
    said = [(name, what) for name, what in ((config.provider_id, "provider"), (config.pool, "pool")) if name]
    for name, what in [*said, *((name, "resource") for name in config.named)]:
        try:
            check_name(name, what)
        except CoordError as error:
            raise AgentStop(Exit.CONFIG, error.message, error.hint) from None
    if len(config.labels) > wire.LABELS_MAX:
        raise AgentStop(Exit.CONFIG, f"{len(config.labels)} labels; {wire.LABELS_MAX} are allowed")
    if len(config.named) > wire.NAMED_MAX:
        raise AgentStop(Exit.CONFIG, f"{len(config.named)} named resources; {wire.NAMED_MAX} are allowed")
    for key, value in config.labels.items():
        if not 1 <= len(key) <= 128 or len(value) > 128 or not (key + value).isprintable():
            why = f"label {key[:40]!a} is empty, too long, or not printable"
            raise AgentStop(Exit.CONFIG, why, "keys and values have at most 128 printable characters")
    if config.isolation not in ISOLATIONS:
        raise AgentStop(
            Exit.CONFIG, f"there is no isolation {config.isolation!a}", f"choose of {', '.join(ISOLATIONS)}"
        )
    if config.log_bytes_max <= 0:
        raise AgentStop(Exit.CONFIG, "a log of no bytes cannot be kept", "give --log-max a size like 1GiB")
    if not config.stage_still_s > 0:
        raise AgentStop(Exit.CONFIG, f"{config.stage_still_s} s is no time to wait for a byte", "give a number above 0")
    if config.cache_bytes_max < 0 or config.fetch_at_once < 1:
        raise AgentStop(
            Exit.CONFIG, "a cache cannot be smaller than nothing, nor less than one transfer go on", "see --cache"
        )
    amounts = [(config.cpus, "cpus"), (config.memory_gb, "memory")]
    for given, what in [*amounts, *((amount, name) for name, amount in config.named.items())]:
        if given is not None and not 0 < given <= 1e9:
            raise AgentStop(Exit.CONFIG, f"{given} is no amount of {what}", "give a number above 0")
    gpus = config.gpus or ()
    if len(gpus) > wire.GPUS_MAX:
        raise AgentStop(Exit.CONFIG, f"{len(gpus)} GPUs; {wire.GPUS_MAX} are allowed")
    if any(len(name) > 128 or not name.isprintable() for name in gpus):
        raise AgentStop(Exit.CONFIG, "a GPU's name is too long or not printable", "use at most 128 characters")
