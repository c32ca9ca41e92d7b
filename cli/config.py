"""The only reader of `coord.toml`, `COORD_*` and flags (in that order of rising precedence).

Each package declares the small frozen struct that it needs; SECTIONS names them, and `Config.section` fills
one. Structs are imported when they are asked for, so that a client command loads nothing of the server.

A value may be written in words where its field's name ends in a unit: `lost_after_ms = "30s"`,
`wal_bytes_max = "64MiB"`. An unknown key is an error that names its line and the nearest known one.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
import sys
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

import msgspec
from msgspec import Struct

from cli import humane
from coordinator.core.errors import Code, CoordError

SECTIONS: dict[str, str] = {
    "serve": "cli.settings:ServeSettings",
    "policy": "coordinator.core.policy:Policy",
    "engine": "coordinator.service.engine:EngineSettings",
    "server": "coordinator.service.server:ServerSettings",
    "api": "coordinator.service.api.settings:ApiSettings",
    "links": "coordinator.service.link_settings:LinkSettings",
    "heartbeats": "coordinator.service.heartbeats:HeartbeatSettings",
    "relay": "coordinator.service.relay.settings:RelaySettings",
    "blobs": "coordinator.service.data.settings:DataSettings",
    "throttle": "coordinator.service.data.gate:GateSettings",
    "alerts": "coordinator.service.alert_settings:AlertSettings",
    "store": "store.settings:StoreSettings",
    "analytics": "analytics.link:LinkSettings",
    "attribution": "analytics.attribution.following.settings:AttributionSettings",
    "traces": "analytics.traces.keeping.limits:TraceSettings",
    "trace_uploads": "coordinator.service.traces:TraceDoorSettings",
    "upkeep": "coordinator.service.upkeep:UpkeepSettings",
    "agent": "coordinator.agent.config:AgentConfig",
    "client": "cli.settings:ClientSettings",
}
"""Section of coord.toml -> where its struct is declared."""
COMPOSED: dict[str, frozenset[str]] = {
    "server": frozenset({"host", "port", "tls_cert", "tls_key", "insecure"}),
    "api": frozenset({"backups", "join_suffix"}),
    "store": frozenset({"failpoint"}),
    "agent": frozenset({"join_token"}),
}
"""Fields that are no settings: composition fills them, from other settings or from secrets."""
TOP = ("data",)
"""Keys of coord.toml outside any section."""
SHORT = {
    "COORD_DATA": ("", "data"),
    "COORD_URL": ("client", "url"),
    "NVRX_ATTRSVC_PROGRESSIVE_ANALYSIS": ("attribution", "progressive"),
}
"""Variables with a name of their own; every other setting is COORD_<SECTION>_<KEY>, and wins over these."""
CHECKS = {"policy": "cli.patience:check"}
"""Sections whose values have to fit each other -> who looks at that."""
MAY_BE_ZERO = frozenset({
    "analytics.nice", "heartbeats.batch_age_s", "links.beats_delay_s", "policy.retry_jitter",
    "policy.term_unsaved_share", "store.ballast_bytes", "store.seal_after_ms", "throttle.egress_bytes_per_s",
    "throttle.ingress_bytes_per_s", "throttle.tenant_bytes_per_s", "upkeep.check_after_s",
})  # fmt: skip
"""Numbers for which 0 means something; every other one is above it."""
FILE_BYTES_MAX = 1 << 20
CENTURY_MS = 36_525 * 86_400_000
_S = TypeVar("_S", bound=Struct)


class Value(NamedTuple):
    """A setting as it was given: not yet converted."""

    raw: object
    origin: str


class Shown(NamedTuple):
    """A setting as `coord config show` prints it."""

    setting: str
    value: object
    origin: str
    default: object


class Flag(NamedTuple):
    """One setting given on the command line."""

    setting: str
    raw: object
    spelled: str


class Config:
    """Everything that was configured, from wherever. Reading a file that is not there is an error only when it
    was named."""

    def __init__(
        self, *, file: Path | None = None, flags: Sequence[Flag] = (), environ: Mapping[str, str] | None = None
    ) -> None:
        self._environ = os.environ if environ is None else environ
        self.file = self._find(file)
        self._lines: dict[tuple[str, str], int] = {}
        self._values: dict[tuple[str, str], Value] = {}
        if self.file is not None:
            self._read(self.file)
        for name, text in self._environ.items():
            self._from_environ(name, text)
        for flag in flags:
            section, _, key = flag.setting.rpartition(".")
            self._check_section(section, f"{flag.spelled} {flag.setting}=...")
            self._values[(section, key)] = Value(flag.raw, flag.spelled)

    # ---- where things are

    def data(self) -> Path:
        """The data directory: --data, COORD_DATA, `data` in the file, else the default of this user."""
        given = self._values.get(("", "data"))
        return Path(str(given.raw)).expanduser() if given is not None else default_data(self._environ)

    def data_origin(self) -> str:
        given = self._values.get(("", "data"))
        return given.origin if given is not None else "default"

    def secret(self, name: str) -> str | None:
        """A secret from the environment (`COORD_TOKEN`, `COORD_JOIN_TOKEN`): flags never carry one."""
        return self._environ.get(name, "").strip() or None

    # ---- sections

    def section(self, name: str, kind: type[_S]) -> _S:
        """The struct of a section, filled. CoordError(BAD_CONFIG) says which value is wrong and where it stands."""
        hints = settings_of(name, kind)
        given: dict[str, object] = self._defaults(name)
        for (section, key), value in self._values.items():
            if section != name:
                continue
            if key not in hints:
                self._refuse_key(section, key, value, hints)
            given[key] = convert(value, f"{name}.{key}", hints[key])
        made = kind(**given)
        if name in CHECKS:
            module, _, check = CHECKS[name].partition(":")
            getattr(importlib.import_module(module), check)(made)
        return made

    def _defaults(self, name: str) -> dict[str, object]:
        """Defaults that depend on who runs this, and so cannot stand in the struct."""
        return {"state_dir": str(default_state(self._environ))} if name == "agent" else {}

    def shown(self) -> list[Shown]:
        """Every setting with its value and where it came from, defaults included."""
        listed = [Shown("data", str(self.data()), self.data_origin(), str(default_data(self._environ)))]
        for name in SECTIONS:
            kind = struct_of(name)
            filled, plain = self.section(name, kind), kind(**self._defaults(name))
            for key in settings_of(name, kind):
                origin = self._values.get((name, key), Value(None, "default")).origin
                listed.append(Shown(f"{name}.{key}", getattr(filled, key), origin, getattr(plain, key)))
        return listed

    # ---- reading

    def _find(self, named: Path | None) -> Path | None:
        if named is None and (text := self._environ.get("COORD_CONFIG")):
            named = Path(text)
        if named is not None:
            if not named.is_file():
                raise CoordError(Code.BAD_CONFIG, f"there is no configuration file {named}", "check --config")
            return named
        home = Path(self._environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        return next((f for f in (home / "coord" / "coord.toml", Path("/etc/coord/coord.toml")) if f.is_file()), None)

    def _read(self, path: Path) -> None:
        import tomllib

        try:
            text = path.read_bytes()[: FILE_BYTES_MAX + 1]
            if len(text) > FILE_BYTES_MAX:
                raise CoordError(Code.BAD_CONFIG, f"{path} is larger than {FILE_BYTES_MAX} bytes", "is it the file?")
            content = tomllib.loads(text.decode())
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as wrong:
            raise CoordError(Code.BAD_CONFIG, f"{path} cannot be read: {wrong}", "it is TOML: see config.md") from wrong
        self._lines = key_lines(text.decode())
        for name, value in content.items():
            line = self._lines.get(("", name), self._lines.get((name, ""), 0))
            if isinstance(value, dict) and name in SECTIONS:
                for key, inner in value.items():
                    at = self._lines.get((name, key), line)
                    self._values[(name, key)] = Value(inner, f"{path}:{at}")
            elif name in TOP and not isinstance(value, dict):
                self._values[("", name)] = Value(value, f"{path}:{line}")
            else:
                self._refuse_key("", name, Value(value, f"{path}:{line}"), [*SECTIONS, *TOP])

    def _from_environ(self, name: str, text: str) -> None:
        if name in SHORT and text:
            section, key = SHORT[name]
            if not self._environ.get(f"COORD_{section}_{key}".upper()):
                self._values[SHORT[name]] = Value(text, name)
        for section in SECTIONS:
            prefix = f"COORD_{section.upper()}_"
            if name.startswith(prefix) and text:
                self._values[(section, name.removeprefix(prefix).lower())] = Value(text, name)

    def _check_section(self, section: str, spelled: str) -> None:
        if section and section not in SECTIONS:
            hint = _nearest(section, SECTIONS) or f"the sections are {', '.join(SECTIONS)}"
            raise CoordError(Code.BAD_CONFIG, f"{spelled}: there is no section {section}", hint)

    def _refuse_key(self, section: str, key: str, value: Value, known: Iterable[str]) -> NoReturn:
        names = list(known)
        full = f"{section}.{key}" if section else key
        hint = _nearest(key, names) or f"known here: {', '.join(names)}"
        raise CoordError(Code.BAD_CONFIG, f"{value.origin}: there is no setting {full}", hint)


def _nearest(name: str, known: Iterable[str]) -> str:
    import difflib  # not at the start: every command would pay for it

    near = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean {near[0]}?" if near else ""


def default_data(environ: Mapping[str, str]) -> Path:
    """/var/lib/coord for root (a service of the machine), else the user's own data home."""
    if os.geteuid() == 0 and not environ.get("XDG_DATA_HOME"):
        return Path("/var/lib/coord")
    return Path(environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "coord"


def default_state(environ: Mapping[str, str]) -> Path:
    """Where an agent keeps its identity: /var/lib/coord-agent for root, else the user's own state home."""
    if os.geteuid() == 0 and not environ.get("XDG_STATE_HOME"):
        return Path("/var/lib/coord-agent")
    return Path(environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "coord-agent"


def struct_of(section: str) -> type[Struct]:
    """The struct that declares a section's settings."""
    module, _, name = SECTIONS[section].partition(":")
    return typing.cast("type[Struct]", getattr(importlib.import_module(module), name))


@functools.cache
def settings_of(section: str, kind: type[Struct]) -> dict[str, Any]:
    """Setting -> its type."""
    hints = typing.get_type_hints(kind, vars(sys.modules[kind.__module__]))
    composed = COMPOSED.get(section, frozenset())
    return {name: hints[name] for name in kind.__struct_fields__ if name not in composed}


def convert(value: Value, setting: str, kind: Any) -> object:
    """A raw value as its field's type. Text may be a length of time or a size where the name ends in a unit."""
    raw, name = value.raw, setting.rpartition(".")[2]
    try:
        if isinstance(raw, str) and (worded := _worded(raw, name, setting)) is not None:
            raw = worded
        shapes = {typing.get_origin(part) for part in (kind, *typing.get_args(kind))}
        if isinstance(raw, str) and tuple in shapes:
            raw = [part.strip() for part in raw.split(",") if part.strip()]
        if isinstance(raw, str) and dict in shapes:
            raw = dict(_pair(part) for part in raw.split(",") if part.strip())
        if isinstance(raw, float) and raw.is_integer() and name.endswith(("_ms", "_bytes", "_bytes_max")):
            raw = int(raw)
        made = msgspec.convert(raw, kind, strict=False, dec_hook=_path)
        if isinstance(made, int | float) and not isinstance(made, bool):
            _check_number(made, setting)
        return made
    except CoordError as wrong:
        raise CoordError(Code.BAD_CONFIG, f"{value.origin}: {wrong.message}", wrong.hint) from wrong
    except (msgspec.ValidationError, ValueError) as wrong:
        what = str(wrong).partition(" - at")[0]
        raise CoordError(Code.BAD_CONFIG, f"{value.origin}: {setting} = {raw!a}: {what}", "see config.md") from wrong


def _check_number(value: float, setting: str) -> None:
    least = 0 if setting in MAY_BE_ZERO else sys.float_info.min
    if not least <= value <= sys.float_info.max:
        raise ValueError("expected a number " + ("of at least 0" if setting in MAY_BE_ZERO else "above 0"))


def _worded(text: str, name: str, setting: str) -> float | None:
    if re.fullmatch(r"[-+]?\d+(\.\d*)?", text.strip()):
        return None
    from coordinator.timetext import asked_duration

    if name.endswith("_ms"):
        return asked_duration(text, setting, 0, CENTURY_MS)
    if name.endswith("_s"):
        return asked_duration(text, setting, 0, CENTURY_MS) / 1000
    if name.endswith(("_bytes", "_bytes_max")):
        return humane.size(text)
    return None


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.strip().partition("=")
    if not equals or not key:
        raise ValueError(f"expected name=value, got {text!a}")
    return key, value


def _path(kind: type, raw: object) -> object:
    if kind is Path and isinstance(raw, str):
        return Path(raw).expanduser()
    raise ValueError(f"expected {kind.__name__}, got {raw!a}")


_TABLE = r"\s*\[\s*([A-Za-z0-9_-]+)\s*\]"
_KEY = r"\s*([A-Za-z0-9_-]+)\s*[.=]"


def key_lines(text: str) -> dict[tuple[str, str], int]:
    """(section, key) -> line of a TOML text, as near as line by line reading gets; (section, "") is its header."""
    found: dict[tuple[str, str], int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        if table := re.match(_TABLE, line):
            section = table[1]
            found.setdefault((section, ""), number)
        elif key := re.match(_KEY, line):
            found.setdefault((section, key[1]), number)
    return found
