"""Tracebacks, what chains them, blocks that mean nothing, and the summaries of launchers."""

from __future__ import annotations

from analytics.attribution.analysis import Analysis
from analytics.attribution.incidents import Kind
from tests.unit.analytics.attribution.told import rules

FRAMES = '  File "/a/train.py", line 3, in step\n    raise RuntimeError("CUDA out of memory. Tried to allocate")\n'


def kinds_of(log: str) -> list[Kind]:
    """What was recognised, in the order of its lines."""
    analysis = Analysis(rules())
    analysis.feed(log.encode())
    return sorted(analysis.ended().incidents.kinds.values(), key=lambda kind: kind.open.order)


def told_of(log: str) -> list[tuple[str, int]]:
    """(exception or the line, number of the line)."""
    return [(kind.exception or kind.open.text.decode(), kind.open.number) for kind in kinds_of(log)]


def test_only_the_last_line_of_a_traceback_is_classified() -> None:
    """The quoted source says CUDA out of memory, and it is a KeyError."""
    log = f"Traceback (most recent call last):\n{FRAMES}KeyError: 'loss'\n"
    assert [("KeyError", 4)] == told_of(log)
    (kind,) = kinds_of(log)
    assert kind.open.frames == b"/a/train.py:step"
    assert kind.open.episode == 1


def test_frames_without_their_header_are_a_traceback_too() -> None:
    """Of a log that was cut before."""
    assert [("KeyError", 3)] == told_of(FRAMES + "KeyError: 'loss'\n")


def test_chained_tracebacks_are_one_episode() -> None:
    """During handling, the direct cause, and what a worker raised again."""
    between = "\nDuring handling of the above exception, another exception occurred:\n\n"
    one = f"Traceback (most recent call last):\n{FRAMES}"
    chained = kinds_of(f"{one}KeyError: 1\n{between}{one}ValueError: 2\n")
    assert [1, 1] == [kind.open.episode for kind in chained]
    cause = "\nThe above exception was the direct cause of the following exception:\n\n"
    assert [1, 1] == [kind.open.episode for kind in kinds_of(f"{one}KeyError: 1\n{cause}{one}ValueError: 2\n")]
    apart = kinds_of(f"{one}KeyError: 1\nhello\n{one}ValueError: 2\n")
    assert [1, 2] == [kind.open.episode for kind in apart]


def test_ranks_that_write_at_once_are_kept_apart() -> None:
    """Each line after the other, of four ranks: one incident with four ranks."""
    lines = ["Traceback (most recent call last):", *FRAMES.splitlines(), "AttributeError: 'list' has no 'sum'"]
    log = "".join(f"[rank{rank}]: {line}\n" for line in lines for rank in range(4))
    (kind,) = kinds_of(log)
    assert (kind.exception, kind.count, kind.ranks) == ("AttributeError", 4, b"\x0f")


def test_ignored_exceptions_mean_nothing() -> None:
    """Also two at once, mixed: neither AssertionError counts, the exception after them does."""
    header, ignored = "Traceback (most recent call last):\n", "Exception ignored in: <function f at 0x7>\n"
    log = f"{ignored}{header}{ignored}{FRAMES}{header}{FRAMES}AssertionError: child\n{FRAMES}AssertionError: child\n"
    assert "AssertionError" not in [kind.exception for kind in kinds_of(log)]
    assert "KeyError" in [kind.exception for kind in kinds_of(f"{log}{header}{FRAMES}KeyError: 1\n")]


def test_a_traceback_within_one_line_is_read() -> None:
    """As JSON has it, with \\n for line ends."""
    log = (
        '  "py_callstack": "Traceback (most recent call last):\\n  File \\"/a/b.py\\", line 4, in h\\nOSError: no\\n"\n'
    )
    (kind,) = kinds_of(log)
    assert (kind.exception, kind.open.text, kind.open.frames) == ("OSError", b"OSError: no", b"/a/b.py:h")


def test_what_a_launcher_tells_is_marked() -> None:
    """With the rank that it names; what comes behind its summary is not."""
    log = (
        "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n==========\ntrain.py FAILED\nFailures:\n"
        "Root Cause (first observed failure):\n[0]:\n  rank      : 5 (local_rank: 1)\n"
        "  traceback : Traceback (most recent call last):\n"
        '    File "/a/b.py", line 4, in h\n      h()\n  KeyError: 1\n==========\nMemoryError\n'
    )
    summaries = {kind.exception or kind.open.text.decode(): (kind.summary, kind.open.rank) for kind in kinds_of(log)}
    assert summaries["KeyError"] == (True, 5)
    assert summaries["MemoryError"] == (False, None)


def test_a_traceback_that_never_ends_is_forgotten() -> None:
    """After 300 lines of silence of its writer every line is no longer looked at."""
    analysis = Analysis(rules())
    analysis.feed(b"[rank1]: Traceback (most recent call last):\n" + b"[rank2]: hello\n" * 298)
    state = analysis.so_far()
    assert state.episodes.watching(state.order)
    analysis.feed(b"[rank2]: hello\n")
    state = analysis.so_far()
    assert not state.episodes.watching(state.order)


def test_writers_are_bounded() -> None:
    """Ten thousand ranks, each within a traceback: the 64 heard last are kept."""
    analysis = Analysis(rules())
    analysis.feed(b"".join(b"[rank%d]: Traceback (most recent call last):\n" % rank for rank in range(10_000)))
    assert len(analysis.so_far().episodes.writers) == 64
    assert len(analysis.save()) < 64 * 1024


def test_a_traceback_that_was_cut_off_counts_when_the_log_ends() -> None:
    """At its header, in the order of the lines; not when its end came, nor when the interpreter ignored it."""
    header = "Traceback (most recent call last):\n"
    (kind,) = kinds_of(f"hello\nstep 1\n{header}{FRAMES}")
    assert (kind.row, kind.open.number, kind.open.steps) == ("any_traceback", 3, 1)
    other = "what the shell writes afterwards\n" * 25
    assert ["any_traceback"] == [kind.row for kind in kinds_of(f"{header}{FRAMES}{other}")]
    assert ["KeyError"] == [kind.exception for kind in kinds_of(f"{header}{FRAMES}KeyError: 1\n")]
    ignored = kinds_of(f"Exception ignored in: <function f at 0x7>\n{header}{FRAMES}")
    assert "any_traceback" not in [kind.row for kind in ignored]


def test_of_a_group_what_it_holds_counts() -> None:
    """In one episode with it."""
    log = (
        "  + Exception Group Traceback (most recent call last):\n"
        '  |   File "/a/t.py", line 1, in <module>\n'
        "  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)\n"
        "  +-+---------------- 1 ----------------\n"
        "    | Traceback (most recent call last):\n"
        '    |   File "/a/t.py", line 4, in g\n'
        "    | KeyError: 'x'\n"
        "    +------------------------------------\n"
    )
    (kind,) = kinds_of(log)
    assert (kind.exception, kind.open.number, kind.open.episode) == ("KeyError", 7, 1)
