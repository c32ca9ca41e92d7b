"""docs/reference/cli.md and config.md, made from the commands and the settings themselves.

`python -m cli.reference docs/reference` writes both; a test fails when they are not what this makes.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import sys
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from msgspec import Struct

from cli import exits
from cli.config import SECTIONS, Config, settings_of, struct_of
from cli.main import COMMANDS, root
from coordinator.core.errors import Code
from coordinator.timetext import duration_text

CLI_HEAD = """\
# Commands

Made from the commands by `make docs`; a test fails when it is out of date.

Results go to stdout, everything else to stderr. Client commands find the coordinator like this: `--url`, else
`COORD_URL`, else `client.url` of [coord.toml](config.md), else the `address` file of the data directory
(`--data`, `COORD_DATA`, else the default one). The token comes from `--token-file` (`-` is stdin), else
`COORD_TOKEN`, else `tokens/admin.token` of that data directory, if it is the same coordinator's. No flag ever
carries a secret. `--data`, `--url` and `--config` may also stand before the command: `coord --data DIR alerts`.

Listings take `-o`:

| format | what it is |
|---|---|
| `table` | for people; columns may change |
| `wide` | the same with more columns, under titles that explain themselves; never cut |
| `json` | the HTTP answer: `{"entries": [...], ...}`, field names as in [http.md](http.md) |
| `jsonl` | one entry a line |
| `csv` | every field of the entries; an apostrophe stands before text that a spreadsheet would calculate (`= + - @`) |
| `name` | ids alone, one a line |

On a terminal that is too narrow a table leaves CPUS and MEMORY away, then cuts its longest texts (`…`); sentences
are wrapped. In a pipe nothing is cut. `coord query availability` is one thing in `json`; in `csv` and `jsonl` it is a
row an hour of the week: `provider_id weekday hour share observed_seconds`, weekday 0 is Monday.

Colour is used on terminals only, and never when `NO_COLOR` is set. Lengths of time are written `30s 5m 8h 7d`,
moments as Unix seconds or ISO 8601 with a zone.
"""

CONFIG_HEAD = """\
# Settings

Made from the settings themselves by `make docs`; a test fails when it is out of date.

Where a value comes from, the last one counts:

1. the default below
2. `coord.toml`: `--config FILE`, else `COORD_CONFIG`, else `$XDG_CONFIG_HOME/coord/coord.toml`
   (`~/.config/coord/coord.toml`), else `/etc/coord/coord.toml`
3. the variable `COORD_<SECTION>_<KEY>`, like `COORD_POLICY_LOST_AFTER_MS=45s`
4. a flag of the command, or `coord serve --set SECTION.KEY=VALUE`

`coord config show` prints each value and which of these it came from. An unknown key is an error that names its
line and the nearest known key. Where a key's name ends in `_ms` or `_s` the value may be a length of time in
words (`"30s"`), where it ends in `_bytes` or `_bytes_max` a size (`"64MiB"`).

A provider is pinged, then suspect, then lost: `policy.lost_after_ms` is at least six heartbeat intervals, and
`policy.suspect_after_intervals` lies between `policy.ping_after_intervals` and that; else the start is refused.

| variable | what it is |
|---|---|
| `COORD_DATA` | the data directory; `data` of the file, `--data` |
| `COORD_CONFIG` | the file to read |
| `COORD_URL` | the coordinator, for clients and agents; `client.url` of the file, `--url` |
| `COORD_TOKEN` | secret: the token of client commands; never in a file of settings, never in a flag |
| `COORD_JOIN_TOKEN` | secret: the join token of `coord agent`, needed once (`COORD_TOKEN` stands in for it) |
| `NO_COLOR` | no colour, whatever its value |

Default data directory: `/var/lib/coord` for root, else `$XDG_DATA_HOME/coord` (`~/.local/share/coord`). Default
state directory of an agent: `/var/lib/coord-agent` for root, else `$XDG_STATE_HOME/coord-agent`
(`~/.local/state/coord-agent`).

```toml
data = "/srv/coord"

[serve]
listen = "0.0.0.0:7070"
tls_cert = "/etc/coord/cert.pem"
tls_key = "/etc/coord/key.pem"

[policy]
lost_after_ms = "45s"
```
"""


IN_WORDS = {
    "policy.pools_max": "Pools; further ones are refused.",
    "policy.tenants_max": "Tenants; further ones are refused.",
    "policy.quarantine_jobs": "Those failures are of so many jobs at least.",
    "policy.quarantine_max_ms": "The longest quarantine.",
    "policy.storm_ms": "The time within which those retries count.",
    "api.import_rows_max": "Rows of one import.",
    "api.remembered_per_token_max": "The same of one token.",
    "api.remembered_s": "An answer is kept for so long.",
    "links.hello_s": "A connection has so long to say hello.",
    "links.frame_bytes_max": "Bytes of one frame from an agent.",
    "heartbeats.backoff_max_s": "The longest of those pauses.",
    "analytics.threads": "Threads of DuckDB in the worker.",
    "analytics.nice": "How far the worker steps back behind the coordinator.",
    "analytics.backtest_timeout_s": "The same of a backtest.",
    "analytics.backoff_first_s": "Pause before a worker that died is started again; it doubles each time.",
    "analytics.backoff_max_s": "The longest of those pauses.",
    "analytics.sql_memory": "Memory cap of one SQL query.",
    "analytics.sql_at_once_max": "SQL queries that run at the same time; a few more wait.",
    "upkeep.alerts_s": "Standing conditions are looked at this often.",
    "agent.labels": "Shown with the provider; `--label`.",
    "agent.memory_gb": "Memory offered, in GB (10^9 bytes), instead of what was detected; `--memory`.",
    "agent.gpus": "Names of the GPUs offered, instead of those detected; `--gpu`.",
    "agent.log_level": "Of stderr: debug, info, warning or error.",
}
"""Settings whose declaration leaves the words to their name."""


def cli_page() -> str:
    """docs/reference/cli.md."""
    parts = [CLI_HEAD, _exit_table()]
    context = click.Context(root, info_name="coord")
    for title, entries in COMMANDS.items():
        parts.append(f"## {title}\n")
        for name in entries:
            command = root.get_command(context, name)
            assert command is not None
            parts += list(_command(command, click.Context(command, info_name=name, parent=context)))
    return "\n".join(parts)


def _exit_table() -> str:
    lines = ["## Exit statuses\n", "| status | meaning | error codes |", "|---|---|---|"]
    for status, meaning in exits.MEANING.items():
        codes = ", ".join(f"`{code}`" for code in Code if exits.BY_CODE[code] == status)
        lines.append(f"| {status} | {meaning} | {codes} |")
    lines.append(
        "\n`coord serve` that was told to stop (SIGTERM, Ctrl-C) ends with 0; a second signal ends it at once."
    )
    lines.append(
        "`coord submit --wait` and `coord job wait` end with the status of the job: 0 when it completed, else that of "
        "its first failed task, 128 + N when signal N ended it, 124 and 125 as above. A status above may so be the "
        "job's own: what coord itself could not do is said on stderr, in a line that begins with `coord:`.\n"
    )
    lines.append("`coord agent` has statuses of its own:\n\n| status | meaning |\n|---|---|")
    lines += [f"| {status} | {_plain(meaning)} |" for status, meaning in _agent_exits()]
    return "\n".join(lines) + "\n"


def _agent_exits() -> Iterator[tuple[int, str]]:
    from coordinator.agent.exits import Exit

    said = attribute_docs(Exit)
    for member in Exit:
        yield int(member), said[member.name]


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"### `{context.command_path}`\n"
    text, examples = _help(command)
    yield text + "\n"
    if examples:
        yield "```sh\n" + examples + "\n```\n"
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"`{context.command_path} {usage}`\n"
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    if options:
        yield "| option | meaning |\n|---|---|"
        for option in options:
            record = option.get_help_record(context)
            assert record is not None
            yield f"| `{record[0].replace('|', '/')}` | {record[1].replace('|', '/')} |"
        yield ""
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _command(inner, click.Context(inner, info_name=name, parent=context))


def _help(command: click.Command) -> tuple[str, str]:
    """The paragraphs and the examples of a command's help."""
    text, _, examples = inspect.cleandoc(command.help or "").partition("\b\n")
    return " ".join(text.split()) if "\n\n" not in text.strip() else _paragraphs(text), textwrap.dedent(
        examples
    ).strip()


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.strip().split("\n\n"))


def config_page() -> str:
    """docs/reference/config.md."""
    parts = [CONFIG_HEAD]
    for section in SECTIONS:
        kind = struct_of(section)
        parts.append(f"## [{section}]\n\n{_plain(inspect.getdoc(kind) or '')}\n")
        parts.append("| key | type | default | meaning |\n|---|---|---|---|")
        parts += list(_settings(section, kind))
        parts.append("")
    return "\n".join(parts)


def _settings(section: str, kind: type[Struct]) -> Iterator[str]:
    said = attribute_docs(kind)
    plain = Config(environ={"HOME": "/", "XDG_STATE_HOME": "~"}).section(section, kind)
    for key, hint in settings_of(section, kind).items():
        default = getattr(plain, key)
        shown = "" if default in (None, "", (), {}) else f"`{_toml(_worded(key, default))}`"
        if section == "agent" and key == "state_dir":
            shown = "see above"
        meaning = _plain(said.get(key) or IN_WORDS.get(f"{section}.{key}", ""))
        yield f"| `{section}.{key}` | {_type(hint)} | {shown} | {meaning} |"


def _worded(key: str, default: object) -> object:
    return duration_text(default) if key.endswith("_ms") and isinstance(default, int) and default >= 1000 else default


def _toml(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case tuple():
            return "[" + ", ".join(_toml(part) for part in value) + "]"
        case str() | Path():
            return f'"{value}"'
        case _:
            return str(value)


def _type(hint: Any) -> str:
    inner = [part for part in typing.get_args(hint) if part is not type(None)]
    if type(None) in typing.get_args(hint):
        return _type(inner[0])
    names = {int: "integer", float: "number", str: "text", bool: "true or false", Path: "path"}
    origin = typing.get_origin(hint) or hint
    if origin is dict:
        return f"map of {names[typing.get_args(hint)[1]]}"
    return "list of text" if origin is tuple else names[hint]


def attribute_docs(kind: type) -> dict[str, str]:
    """The string below each attribute of a class: what the code says of it is what the page says."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    body = typing.cast(ast.ClassDef, tree.body[0]).body
    said = {}
    for node, below in itertools.pairwise(body):
        match node, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                said[name] = text
    return said


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("|", "/")


def undocumented() -> list[str]:
    """Settings that say nothing of themselves, where the name does not say it all."""
    silent = []
    for section in SECTIONS:
        said = attribute_docs(struct_of(section))
        names = settings_of(section, struct_of(section))
        silent += [f"{section}.{key}" for key in names if not said.get(key) and f"{section}.{key}" not in IN_WORDS]
    return silent


def write(directory: Path) -> None:
    """Both pages, into `directory`."""
    (directory / "cli.md").write_text(cli_page())
    (directory / "config.md").write_text(config_page())


if __name__ == "__main__":
    write(Path(sys.argv[1]))
