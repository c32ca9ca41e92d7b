"""What stands before a line goes, and what it says is kept."""

from __future__ import annotations

import pytest

from analytics.attribution.prefixes import strip
from analytics.attribution.times import Clock


@pytest.mark.parametrize(
    ("line", "text", "rank", "host"),
    [
        (b"[rank3]: boom", b"boom", 3, b""),
        (b"[default3]:  what():  boom", b" what():  boom", 3, b""),
        (b"[3]: boom", b"boom", 3, b""),
        (b"15: boom", b"boom", 15, b""),
        (b"[1,7]<stderr>: boom", b"boom", 7, b""),
        (b"[node4:2]boom", b"boom", 2, b"node4"),
        (b"[node4:48213] *** boom", b"*** boom", None, b"node4"),
        (b"(worker pid=12, ip=10.0.0.1) boom", b"boom", None, b"10.0.0.1"),
        (b"(RayTrainWorker pid=12, ip=10.0.0.1) [rank1]: boom", b"boom", 1, b"10.0.0.1"),
        (b"[3]<stderr>:boom", b"boom", 3, b""),
        (b"[1,mpirank:2,algo-1]<stderr>:boom", b"boom", 2, b""),
        (b"[trainer6]: boom", b"boom", 6, b""),
        (b"      From worker 4:\tboom", b"boom", 4, b""),
        (b"trainer-1  | boom", b"boom", None, b"trainer-1"),
        (b"| epoch 3 | loss 1", b"| epoch 3 | loss 1", None, b""),
        (b"worker-0: [rank9]: boom", b"boom", 9, b"worker-0"),
        (b"10.0.0.2: boom", b"boom", None, b"10.0.0.2"),
        (b"> \x1b[36m(f pid=1)\x1b[0m boom", b"boom", None, b""),
        (b"Feb  7 19:37:09 node7 kernel: boom", b"boom", None, b"node7"),
        (b"[E Group.cpp:73] [Rank 5] boom", b"[E Group.cpp:73] [Rank 5] boom", 5, b""),
        (b'{"log":"  File \\"x\\", line 3\\n","stream":"stderr"}', b'  File "x", line 3', None, b""),
        (b"KeyError: 'x'", b"KeyError: 'x'", None, b""),
        (b"python3: can't open file", b"python3: can't open file", None, b""),
        (b"srun: error: boom", b"srun: error: boom", None, b""),
        (b"  File indented", b"  File indented", None, b""),
        (b"", b"", None, b""),
        (b"[rank1]: " * 40 + b"x", b"[rank1]: " * 32 + b"x", 1, b""),
    ],
)
def test_who_wrote_a_line(line: bytes, text: bytes, rank: int | None, host: bytes) -> None:
    """Ranks and hosts of launchers, nested ones too, at most eight of them."""
    told = strip(line)
    assert (text, rank, host) == (told.text, told.rank, told.host)


@pytest.mark.parametrize(
    ("line", "text", "clock", "at_ms"),
    [
        (b"2022-05-27T10:42:30.155Z boom", b"boom", Clock.DATE, 1_653_648_150_155),
        (b"2022-05-27T12:42:30.155+02:00 boom", b"boom", Clock.DATE, 1_653_648_150_155),
        (b"[2022-05-27 10:42:30,155] [INFO] [a.py:5:f] boom", b"boom", Clock.DATE, 1_653_648_150_155),
        (b"2022-05-27 10:42:30 | ERROR | mod:fn:1 - boom", b"boom", Clock.DATE, 1_653_648_150_000),
        (b"2022-05-27T10:42:30.155000000Z stderr F boom", b"boom", Clock.DATE, 1_653_648_150_155),
        (b"[Fri May 27 10:42:30 2022] boom", b"boom", Clock.DATE, 1_653_648_150_000),
        (b"I0527 10:42:30.155540 12345 file.go:123] boom", b"boom", Clock.DAY_OF_YEAR, 959_424_150_155),
        (b"[rank5]:[E527 10:42:30.155540349 G.cpp:681] boom", b"boom", Clock.DAY_OF_YEAR, 959_424_150_155),
        (b"[2022-05-27, 10:42:30 UTC] {taskinstance.py:18} ERROR - boom", b"boom", Clock.DATE, 1_653_648_150_000),
        (b"22/05/27 10:42:30 ERROR boom", b"boom", Clock.DATE, 1_653_648_150_000),
        (b"10:42:30.155 boom", b"boom", Clock.DAY, 38_550_155),
        (b"[12345.678901] boom", b"boom", Clock.START, 12_345_678),
        (b"2022-13-45 10:42:30 boom", b"boom", Clock.NONE, 0),
    ],
)
def test_when_a_line_was_written(line: bytes, text: bytes, clock: Clock, at_ms: int) -> None:
    """Of two times of one clock the difference means something."""
    told = strip(line)
    assert (text, clock, at_ms) == (told.text, told.clock, told.at_ms)
