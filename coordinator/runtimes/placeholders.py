"""`{name}` in the texts of a step: which there are, and what a task puts in their place.

A name is a letter or `_` and then letters, digits, `_` or `-`. `{{name}}` is the literal text `{name}`, and a `${NAME}`
is the shell's own. Any other brace is what it is: scripts and JSON pass through untouched (a rule by which every `}}`
became `}` would corrupt nested JSON without a word).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_PART = re.compile(r"\{\{(?P<literal>[A-Za-z_][A-Za-z0-9_-]*)\}\}|(?<![$\{])\{(?P<name>[A-Za-z_][A-Za-z0-9_-]*)\}")


def names(text: str) -> tuple[str, ...]:
    """The placeholders in `text`, each once, in their order."""
    return tuple(dict.fromkeys(found["name"] for found in _PART.finditer(text) if found["name"]))


def fill(text: str, values: Mapping[str, str]) -> str:
    """`text` with every placeholder that `values` knows replaced; unknown ones stay as they are."""
    if "{" not in text:
        return text

    def put(found: re.Match[str]) -> str:
        if found["literal"]:
            return "{" + found["literal"] + "}"
        return values.get(found["name"], found[0])

    return _PART.sub(put, text)
