"""The page: one file, nothing from anywhere, whatever names are in it; drawn by a real browser."""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path
from typing import Any

import pytest

from analytics.traces.analysis import analyze
from analytics.traces.columns import Trace
from analytics.traces.exports import html
from tests.browser import Page, browser
from tests.unit.analytics.traces.exports.runs import EVIL, awkward, generated

READY = "document.documentElement?.dataset.ready !== undefined && document.title !== ''"
DATA = re.compile(rb'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)


def written(trace: Trace, title: str = "") -> bytes:
    return b"".join(html.pieces(trace, analyze(trace), title=title))


def held(page: bytes) -> dict[str, Any]:
    """The data within the page."""
    (found,) = DATA.findall(page)
    data: dict[str, Any] = json.loads(found)
    return data


def opened(page: Page, content: bytes, place: Path) -> None:
    file = place / "run.html"
    file.write_bytes(content)
    page.open(file.as_uri(), READY)


def test_no_name_can_break_out_of_the_page() -> None:
    """Whatever a job calls things: the page has one block of data and one script, as it was written."""
    page = written(awkward(), title=EVIL)
    assert page.count(b"<script") == page.count(b"</script>") == 2
    assert b"<b>" not in page
    assert held(page)["title"] == EVIL
    assert EVIL in held(page)["names"]


def test_the_page_asks_for_nothing() -> None:
    """No address is in it, and its own policy allows its one script, its one style and no connection."""
    page = written(awkward())
    assert not re.search(rb"https?://|src=|@import|url\(", page)
    policy = html.policy()
    assert f'content="{policy}"'.encode() in page
    assert "default-src 'none'" in policy and "unsafe" not in policy


def test_causes_that_follow_from_times_are_marked() -> None:
    """By `~`, in the table and at the path, and the table says what that is; of a job none is."""
    page = held(written(awkward()))
    (table,) = (one for one in page["tables"] if one["title"] == "Critical path")
    assert table["rows"] and all(row[-1].startswith("~ ") for row in table["rows"])
    assert table["note"].startswith("~ was not recorded")
    assert all(one["cause"].startswith("~ ") for one in page["path"])


def test_every_span_is_in_one_strip_and_strips_do_not_overlap() -> None:
    """The page finds spans by halving: within a strip they follow one another."""
    trace = awkward()
    data = held(written(trace))
    spans = data["spans"]
    covered: list[int] = []
    for begin, end in (strip for group in data["groups"] for row in group["rows"] for strip in row["strips"]):
        covered += range(begin, end)
        for at in range(begin + 1, end):
            assert spans["start"][at - 1] + spans["length"][at - 1] <= spans["start"][at]
    assert sorted(covered) == list(range(len(trace.spans)))


def test_of_too_many_spans_the_longest_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the page says how many are not."""
    monkeypatch.setattr(html, "SPANS_MAX", 5)
    data = held(written(awkward()))
    assert len(data["spans"]["start"]) == 5
    assert any(note.startswith("8 of 13 spans") for note in data["notes"])


def colours(png: bytes) -> int:
    """How many different pixels a picture has (RGB or RGBA, 8 bits)."""
    at, width, channels, packed = 8, 0, 0, b""
    while at < len(png):
        size, kind = int.from_bytes(png[at : at + 4]), png[at + 4 : at + 8]
        body = png[at + 8 : at + 8 + size]
        if kind == b"IHDR":
            width, channels = int.from_bytes(body[:4]), {2: 3, 6: 4}[body[9]]
        elif kind == b"IDAT":
            packed += body
        at += 12 + size
    stride = width * channels + 1
    raw = zlib.decompress(packed)
    # Rows filtered alike hold differences, and different colours differ in these too: enough to tell a chart from none.
    return len({raw[begin + 1 + x : begin + 1 + x + channels] for begin in range(0, len(raw), stride)
                for x in range(0, stride - 1, channels)})  # fmt: skip


DRAWN = """(() => {
  const got = paint.getImageData(0, 0, canvas.width, canvas.height).data, seen = new Set();
  for (let i = 0; i < got.length; i += 4) seen.add(`${got[i]},${got[i + 1]},${got[i + 2]}`);
  return KINDS.filter((kind) => seen.has(colours[kind].match(/\\w\\w/g).map((hex) => parseInt(hex, 16)).join()));
})()"""
"""Which kinds of bars are on the canvas, by their colours."""
SEARCH = """(() => {
  const field = document.getElementById("find");
  field.value = "c";
  field.dispatchEvent(new Event("change"));
})()"""
FRAME_MS = """Math.min(...[1, 2, 3, 4, 5].map(() => {
  const began = performance.now();
  drawNow();
  return performance.now() - began;
}))"""


def test_a_browser_draws_it(tmp_path: Path) -> None:
    """Without a fault and without a request: names as text, tables filled, bars of every kind on the canvas."""
    with browser(tmp_path) as page:
        opened(page, written(awkward(), title=EVIL), tmp_path)
        assert page.value("document.getElementById('title').textContent") == EVIL
        assert page.value("document.querySelectorAll('main section table tbody tr').length") > 5
        assert page.value("document.querySelectorAll('b').length") == page.value("D.facts.length")
        assert set(page.value(DRAWN)) >= {"task", "network", "bad", "open"}
        assert colours(page.screenshot(tmp_path / "run.png")) > 50
        assert page.faults == []
        assert [url for url in page.requests if not url.startswith("file:")] == []


def test_it_can_be_zoomed_searched_and_turned_dark(tmp_path: Path) -> None:
    """Keys, buttons, the search field, a click on a row of a table; the theme changes what is drawn."""
    with browser(tmp_path) as page:
        opened(page, written(awkward()), tmp_path)
        whole = page.value("to - from")
        page.value("canvas.dispatchEvent(new KeyboardEvent('keydown', {key: 'w', bubbles: true}))")
        assert page.value("to - from") < whole
        page.value("document.getElementById('fit').click()")
        assert page.value("to - from") == whole
        page.value(SEARCH)
        assert page.value("D.tasks[found]") == "c"
        assert page.value("from") > 0
        page.value("document.querySelector('tr[data-task]').click()")
        assert page.value("D.tasks[found]") in ("a", "b", "c")
        before = page.value("colours.back")
        page.value("document.getElementById('theme').click()")
        assert page.value("colours.back") != before
        assert page.faults == []


@pytest.mark.soak
def test_a_hundred_thousand_spans_stay_usable(tmp_path: Path) -> None:
    """They are folded: a frame is drawn within a quarter of a second, the best of five, folded, open and zoomed in."""
    trace = generated(tmp_path / "run", "--spans", "110000", "--workers", "64", "--merge", "0.1", details=False)
    assert len(trace.spans) > 95_000
    with browser(tmp_path) as page:
        opened(page, written(trace), tmp_path)
        times = [page.value(FRAME_MS)]
        page.value("D.groups.forEach((_, at) => open.add(at)), layout(), fitted()")
        times.append(page.value(FRAME_MS))
        page.value("look(total * 0.4, total * 0.4 + total / 1000)")
        times.append(page.value(FRAME_MS))
        page.screenshot(tmp_path / "large.png")
        assert max(times) < 250, times
        assert page.faults == []
