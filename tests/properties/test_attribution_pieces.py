"""However a log's bytes are cut, saved and restored on their way, its verdict is that of one pass over all of them."""

from __future__ import annotations

import random

import pytest

from analytics.attribution.engine import Analysis, End, Rules, canonical, judge
from coordinator.core.rows import EndCause

RULES = Rules.load()
EXAMPLES = [row.example.replace("\\n", "\n").encode() for row in RULES.rows]
PREFIXES = [
    b"",
    b"",
    b"[rank%d]: ",
    b"[default%d]:",
    b"%d: ",
    b"[1,%d]<stderr>: ",
    b"(worker pid=71%d, ip=10.0.0.7) ",
    b"2024-05-0%d 10:11:12,345 ",
    b"[2024-05-0%d 10:11:12] [INFO] [a.py:1:f] ",
    b"> ",
    b"\x1b[31m\x1b[0m",
]
SCRAPS = [
    b'Traceback (most recent call last):\n  File "/a/train.py", line 3, in step\n    f(loss)\nValueError: bad\n',
    b'Traceback (most recent call last):\n  File "/a/x.py", line 1, in f\n    f()\nKeyError: 1\n\n'
    b"During handling of the above exception, another exception occurred:\n\n"
    b'Traceback (most recent call last):\n  File "/a/y.py", line 9, in g\n    g()\nfoo.bar.OddlyNamed: what\n',
    b"Exception ignored in: <function f at 0x7f>\nTraceback (most recent call last):\n"
    b'  File "/a/z.py", line 2, in __del__\nAssertionError: can only test a child process\n',
    b'"py_callstack": "Traceback (most recent call last):\\n  File \\"/a/b.py\\", line 4, in h\\nOSError: no\\n"\n',
    b'{"log":"RuntimeError: wrapped \\u00e9\\n","stream":"stderr"}\n',
    b"torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n====================\ntrain.py FAILED\n"
    b"Failures:\n[1]:\n  rank      : 3 (local_rank: 3)\n  exitcode  : -9 (pid: 7)\n"
    b"Root Cause (first observed failure):\n[0]:\n  rank      : 1 (local_rank: 1)\n====================\n",
    b"\r  0%|          | 0/10 [00:00<?, ?it/s]\r 50%|#####     | 5/10 [00:05<00:05, 1.0it/s]\r\n",
    b"\r\r\n\n\r\n",
    b" iteration       %d/    1000 | consumed samples:  40 | loss scale: 12.0 |\n",
    b"step %d loss 0.5\n",
    b"{'loss': 0.5, 'epoch': %d.25}\n",
    b"saved checkpoint at step %d\r\n",
    b"nothing of interest here, really %d\n",
    b"caf\xc3\xa9 \xff\xfe\x00 \xe2\x96\x88\n",
    b"\x00\n",
    b"x" * 9_000 + b" CUDA out of memory. Tried to allocate " + b"y" * 9_000 + b"\n",
    b"z" * 40_000 + b"\rRuntimeError: at the end of a long line\n",
    b"step 7 " + b"q" * 16_384 + b"\n",
    b"Training completed %d\n",
    b"Killed",
    b"world_size=8\n",
]


def a_log(chance: random.Random) -> list[tuple[int, bytes]]:
    """Pieces of two streams in the order in which they were stored; lines may end in a later piece."""
    pieces = []
    for _ in range(chance.randint(1, 60)):
        scrap = chance.choice(SCRAPS) if chance.random() < 0.6 else chance.choice(EXAMPLES) + b"\n"
        if b"%d" in scrap:
            scrap = scrap.replace(b"%d", b"%d" % chance.randrange(9_999))
        prefix = chance.choice(PREFIXES).replace(b"%d", b"%d" % chance.randrange(9))
        if prefix:
            scrap = prefix + scrap[:-1].replace(b"\n", b"\n" + prefix) + scrap[-1:]
        if chance.random() < 0.2:
            scrap = scrap.replace(b"\n", b"\r\n")
        if chance.random() < 0.1:
            scrap = scrap[: chance.randrange(len(scrap))]
        repeated = scrap * chance.choice((1, 1, 1, 2, 40)) if len(scrap) < 300 else scrap
        stream = int(chance.random() < 0.3)
        at = 0
        while at < len(repeated):
            size = chance.choice((len(repeated), chance.randint(1, 5_000)))
            pieces.append((stream, repeated[at : at + size]))
            at += size
    return pieces


def cut(chance: random.Random, piece: bytes) -> list[bytes]:
    """The piece in smaller ones: bytes alone where it is short."""
    if chance.random() < 0.3:
        return [piece]
    largest = chance.choice((1, 3, 17, 400, 5_000)) if len(piece) < 2_000 else chance.choice((97, 3_000, 20_000))
    parts, at = [], 0
    while at < len(piece):
        size = chance.randint(1, largest)
        parts.append(piece[at : at + size])
        at += size
    return parts


def check(seed: int) -> None:
    chance = random.Random(seed)
    pieces = a_log(chance)
    usual = frozenset[str]()
    if chance.random() < 0.3:
        good = Analysis(RULES)
        good.feed(b"".join(data for _, data in a_log(chance)))
        usual = good.fingerprints()
    whole = Analysis(RULES, "log", usual)
    last, joined = -1, b""
    for stream, data in [*pieces, (-1, b"")]:
        if stream != last and joined:
            whole.feed(joined, last)
            joined = b""
        last, joined = stream, joined + data
    parts = Analysis(RULES, "log", usual)
    for stream, data in pieces:
        for part in cut(chance, data):
            parts.feed(part, stream)
            if chance.random() < 0.02:
                parts.peek()
            if chance.random() < 0.02:
                parts = Analysis.restore(RULES, parts.save())
    end = End(cause=EndCause.EXITED, code=chance.choice((0, 1, 137)))
    assert parts.consumed == whole.consumed
    assert parts.peek() == whole.peek(), f"seed {seed}: peek"
    assert canonical(judge([parts], end)) == canonical(judge([whole], end)), f"seed {seed}: {pieces}"
    assert parts.fingerprints() == whole.fingerprints(), f"seed {seed}: fingerprints"
    assert parts.save() == whole.save(), f"seed {seed}: state"
    assert len(parts.save()) < 256 * 1024


@pytest.mark.parametrize("part", range(4))
def test_pieces_of_a_log_lead_to_the_verdict_of_one_pass(part: int) -> None:
    """Two streams, invalid bytes, split line ends and characters, long lines, restores, good runs to learn from."""
    for seed in range(part * 25, part * 25 + 25):
        check(seed)


def test_which_gate_lets_a_line_through_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Always the plainer one, or never: the same state to the byte."""
    for seed in range(1_000, 1_060):
        log = a_log(random.Random(seed))
        states = []
        for tried, many in ((10**9, 1), (1, 10**9)):
            monkeypatch.setattr("analytics.attribution.analysis.HITS_TRIED", tried)
            monkeypatch.setattr("analytics.attribution.analysis.HITS_MANY", many)
            analysis = Analysis(RULES)
            for stream, data in log:
                analysis.feed(data, stream)
            states.append(analysis.save())
        assert states[0] == states[1], f"seed {seed}"


@pytest.mark.parametrize("seed", (10_087, 13_376))
def test_schedules_that_once_led_elsewhere(seed: int) -> None:
    """A line behind the last one that was watched, within a block and as the first of one; a step within a block."""
    check(seed)


@pytest.mark.soak
@pytest.mark.parametrize("part", range(10))
def test_ten_thousand_schedules_of_pieces_lead_to_the_verdict_of_one_pass(part: int) -> None:
    """The same over 10,000 logs."""
    for seed in range(10_000 + part * 1_000, 11_000 + part * 1_000):
        check(seed)
