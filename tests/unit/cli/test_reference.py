"""The pages and the program say the same: reference pages are made from it, and every command in a page exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from cli.main import root
from cli.reference import cli_page, config_page, undocumented

TREE = Path(__file__).parents[3]
PAGES = sorted([TREE / "README.md", *TREE.glob("docs/**/*.md")])
OURS = [TREE / "README.md", *sorted((TREE / "docs" / "howto").glob("*.md"))]
FENCE = re.compile(r"^```(?:sh|console|ini)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("name", "made"), [("cli.md", cli_page), ("config.md", config_page)])
def test_the_reference_pages_are_what_the_program_says(name: str, made: object) -> None:
    """`make docs` writes them; a command, option, setting or status that is new is missing until then."""
    assert callable(made)
    assert (TREE / "docs" / "reference" / name).read_text() == made(), "run: make docs"


def test_every_setting_says_what_it_is() -> None:
    """Beside its declaration, or in words of the page."""
    assert undocumented() == []


def commands_in(page: Path) -> list[str]:
    """Every `coord ...` of a page's examples, up to what belongs to the shell."""
    found = []
    for block in FENCE.findall(page.read_text()):
        for line in block.replace("\\\n", " ").splitlines():
            for match in re.finditer(r"(?:^|[\s(/=])(coord (?!serves)[a-z-].*)", line):
                before = line[: match.start(1)].strip()
                if before in ("", "$") or before.endswith(("$(", "|")) or "=" in before:
                    found.append(re.split(r"\s#|\s[>|<]|[)]\"", match[1])[0].strip())
    return found


ALL = [(page.relative_to(TREE), text) for page in PAGES for text in commands_in(page)]


@pytest.mark.parametrize(("page", "text"), ALL, ids=[f"{page}: {text[:60]}" for page, text in ALL])
def test_every_command_in_a_page_exists_with_its_options(page: Path, text: str) -> None:
    """Names and options are checked by the parser itself; nothing is run."""
    words = shlex.split(text)[1:]
    words = words[: words.index("--")] if "--" in words else words  # behind it everything is the program's
    command: click.Command = root
    context = click.Context(root, info_name="coord")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        inner = command.get_command(context, words[0])
        assert inner is not None, f"{page}: there is no command {words[0]!r} in `{text}`"
        command, words = inner, words[1:]
        context = click.Context(command, info_name=command.name, parent=context)
    known = {name for param in command.get_params(context) for name in (*param.opts, *param.secondary_opts)}
    given = {word.partition("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word)}
    assert given <= known | {"-o", "-h", "--help"}, f"{page}: `{text}`"


def test_the_pages_do_show_commands() -> None:
    """The test above has something to look at."""
    assert len(ALL) > 40
    assert len([text for page, text in ALL if page == Path("README.md")]) >= 8


@pytest.mark.parametrize("page", OURS, ids=lambda page: page.name)
def test_links_of_the_readme_and_the_how_tos_lead_somewhere(page: Path) -> None:
    """Relative links name files that are there."""
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()) if "://" not in link]
    missing = [link for link in links if not (page.parent / link).exists()]
    assert missing == []


def test_every_make_target_is_listed_and_ci_is_make_check() -> None:
    """`make help` shows a line for each, and `.ci/run` runs lint, types and tests through `check`."""
    makefile = (TREE / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    listed = re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE)
    assert sorted(listed) == sorted(phony[1].split())
    assert re.search(r"^check: lint types test ", makefile, re.MULTILINE)
    assert "make check" in (TREE / ".ci" / "run").read_text()
