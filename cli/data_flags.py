"""Flags of `coord submit` about data, in the words of the job file."""

from __future__ import annotations

from pathlib import Path

from cli.jobtext import Body
from coordinator.core.errors import Code, CoordError

ARTIFACT = "artifact:"
_RULE = ("path", "every", "keep", "signal", "grace")


def inputs_of(texts: tuple[str, ...]) -> list[Body] | None:
    """`FILE`, `FILE:AS`, `artifact:NAME`, `artifact:NAME:AS`, each as an input."""
    return [_input(text) for text in texts] or None


def _input(text: str) -> Body:
    if text.startswith(ARTIFACT):
        source, place = _split(text.removeprefix(ARTIFACT))
        if place is not None and source in ("blake3", "sha256"):
            source, place = f"{source}:{place}", None
        return _told(ARTIFACT + source, place)
    if Path(text).expanduser().exists():
        source, place = text, None
    else:
        source, place = _split(text)
    if not source:
        raise CoordError(Code.BAD_JOB, f"--input {text!a} names no file", "write --input FILE, or FILE:AS")
    return _told(source if source.startswith(("/", "./", "../", "~/")) else f"./{source}", place)


def _split(text: str) -> tuple[str, str | None]:
    before, colon, behind = text.rpartition(":")
    return (before, behind) if colon and before and behind else (text, None)


def _told(source: str, place: str | None) -> Body:
    return {"from": source} if place is None else {"from": source, "to": place}


def checkpoint_of(text: str | None) -> Body | None:
    """`10m`, `auto`, or `every=10m,path=ckpt,keep=3,signal=USR1,grace=2m`; `on`: the program takes them itself."""
    if text is None:
        return None
    if text == "on":
        return {}
    if "=" not in text:
        return {"every": text}
    rule: Body = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if name not in _RULE or not equals or name in rule:
            raise CoordError(
                Code.BAD_JOB,
                f"--checkpoint {text!a}: {part!a} is none of its parts",
                "write every=10m,path=ckpt,keep=3",
            )
        rule[name] = int(value) if name == "keep" and value.isascii() and value.isdigit() else value
    return rule
