"""Lines that tell of progress are counted, and their numbers read, over whole blocks."""

from __future__ import annotations

import pytest

from analytics.attribution.progress import Progress


def progress_of(data: bytes) -> tuple[int, int | None, int | None]:
    """(parts, first number, last number) of all lines at once; one line after the other must give the same."""
    whole, single = Progress(), Progress()
    whole.read(data, 0, len(data))
    at = 0
    while at < len(data):
        end = data.index(b"\n", at) + 1
        single.read(data, at, end)
        at = end
    assert (whole.parts, whole.first, whole.last) == (single.parts, single.first, single.last)
    return whole.parts, whole.first, whole.last


@pytest.mark.parametrize(
    ("line", "number"),
    [
        (b" iteration     5426/  250000 | consumed samples: 43408", 5426),
        (b"step=5", 5),
        (b"[2024-01-01 00:00:00] step 7: loss 0.5", 7),
        (b"global_step: 12, loss", 12),
        (b"{| Epoch: 54/167 | Loss: 0.2853 | Step: 424k | }", 424),
        (b"{'loss': 0.1, 'epoch': 3.02}", 3),
        (b"| epoch 027 | loss 6.343 | num_updates 10198 | lr 0.0006", 10_198),
        (b" 50%|#####     | 8/16 [07:00<07:00, 55.00s/it]", 8),
        (b"Epoch 0:   6%|##   | 32040/500150 [6:28:43<94:39:17]", 32_040),
        (b"120/500 [====>...] - ETA: 5s", 120),
        (b"[10]\ttrain-rmse:0.5", 10),
    ],
)
def test_what_tells_of_progress(line: bytes, number: int) -> None:
    """Of steps, bars, boosting rounds and epochs, as trainers write them."""
    assert (1, number, number) == progress_of(line + b"\n")


@pytest.mark.parametrize(
    "line",
    [
        b"slurmstepd: error: *** STEP 1809655.0 ON r6i4n3 CANCELLED AT 2021 ***",
        b"srun: Terminating job step 405737.0",
        b"[before the start of training step] datetime: 2021-05-24",
        b"Loading checkpoint shards:  50%|#### | 1/2 [00:05<00:05]",
        b"Map:  10%|# | 1/10",
        b"    total number of epochs: 75",
        b"max_steps=100",
        b"epoch_size: 10",
        b"  optimizer.step()",
        b"",
    ],
)
def test_what_does_not(line: bytes) -> None:
    """Settings, other bars, and what schedulers call a step."""
    assert (0, None, None) == progress_of(line + b"\n")


def test_bars_count_as_often_as_they_were_drawn() -> None:
    """Also those that end in CR; a line that ends in CR LF is one."""
    bar = b"\r%3d%%|##  | %d/9 [00:00<00:01, 1.0s/it]"
    drawn = b"".join(bar % (i * 10, i) for i in range(9))
    assert (9, 0, 8) == progress_of(b"before" + drawn + b"\r\n")
    assert (2, 1, 2) == progress_of(b"step 1\r\nstep 2\r\n\r\n")
    assert (2, 1, 2) == progress_of(b"\n\nstep 1\n\r\r\nother\nstep 2\n\n")


def test_the_number_is_of_the_most_telling_kind() -> None:
    """Steps and bars before epochs, whichever came last; of steps and bars what counts further."""
    assert (3, 1, 3) == progress_of(b"epoch 1: loss\nepoch 2: loss\n\nepoch 3: loss\n")
    assert (3, 100, 200) == progress_of(b"step 100\n{'epoch': 1.0}\nstep 200\n")
    assert (2, 16, 16) == progress_of(b"step=0, skipped=0\n100%|####| 16/16 [15:19<00:00]\n")
