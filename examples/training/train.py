"""Training that survives the loss of its machine: 200 steps of a small network, in NumPy, resumed from where it was.

Nothing of coord is imported. What makes it survive is in three functions: `restore` at the begin, `save` every few
steps (or when coord asks, by the file `.wanted`), and batches that depend on the number of the step alone. So the
weights at the end are the same to the last bit, however often it was killed on the way.

    python train.py --steps 200
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from pathlib import Path

import numpy as np

Arrays = dict[str, np.ndarray]
CHECKPOINTS = Path(os.environ.get("COORD_CHECKPOINT_DIR", "checkpoints"))
OUTPUTS = Path(os.environ.get("COORD_OUTPUT_DIR", "."))
PROGRESS = os.environ.get("COORD_PROGRESS_FILE")
WIDTHS = (16, 64, 64, 1)
SEED = 20261122


# ---- what makes it survive


def restore() -> tuple[int, Arrays]:
    """The step to go on with, and the state before it: as it was saved, wherever that was; else a fresh one."""
    path = CHECKPOINTS / "state.npz"
    if not path.exists():
        return 0, fresh_state()
    with np.load(path) as saved:
        state = {name: saved[name] for name in saved.files}
    return int(state.pop("step")), state


def save(step: int, state: Arrays) -> None:
    """Take `.ready` back, write everything, say `.ready` again: coord copies what lies there then, and removes it."""
    ready = CHECKPOINTS / ".ready"
    ready.unlink(missing_ok=True)
    part = CHECKPOINTS / "part.npz"
    np.savez(part, step=step, **state)
    part.rename(CHECKPOINTS / "state.npz")
    ready.write_text(f"step={step}")


def is_wanted() -> bool:
    """Whether coord wants a checkpoint now: one is due, or the machine is about to be taken away."""
    return (CHECKPOINTS / ".wanted").exists()


# ---- the training itself


def fresh_state() -> Arrays:
    rng = np.random.default_rng(SEED)
    state = {}
    for layer, (rows, columns) in enumerate(itertools.pairwise(WIDTHS)):
        state[f"w{layer}"] = rng.normal(0.0, rows**-0.5, (rows, columns))
        state[f"b{layer}"] = np.zeros(columns)
    moments = {f"{name}.{moment}": np.zeros_like(value) for name, value in state.items() for moment in "mv"}
    return state | moments


def batch(step: int) -> tuple[np.ndarray, np.ndarray]:
    """The same one for a step whenever and wherever it is made."""
    rng = np.random.default_rng((SEED, step))
    x = rng.normal(size=(256, WIDTHS[0]))
    return x, np.sin(x.sum(axis=1, keepdims=True))


def train_step(step: int, state: Arrays) -> float:
    """One step of Adam, in place; the loss before it."""
    x, y = batch(step)
    layers = len(WIDTHS) - 1
    active = [x]
    for layer in range(layers):
        z = active[-1] @ state[f"w{layer}"] + state[f"b{layer}"]
        active.append(np.tanh(z) if layer < layers - 1 else z)
    error = active[-1] - y
    gradient = 2.0 * error / len(x)
    for layer in reversed(range(layers)):
        back = gradient @ state[f"w{layer}"].T
        adam(step, state, f"w{layer}", active[layer].T @ gradient)
        adam(step, state, f"b{layer}", gradient.sum(axis=0))
        gradient = back * (1.0 - active[layer] ** 2)
    return float((error**2).mean())


def adam(step: int, state: Arrays, name: str, gradient: np.ndarray) -> None:
    m, v = state[f"{name}.m"], state[f"{name}.v"]
    m += 0.1 * (gradient - m)
    v += 0.001 * (gradient**2 - v)
    state[name] -= 0.003 * (m / (1.0 - 0.9 ** (step + 1))) / (np.sqrt(v / (1.0 - 0.999 ** (step + 1))) + 1e-8)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--steps", type=int, default=200)
    options.add_argument("--save-every", type=int, default=20, help="steps between checkpoints")
    options.add_argument("--step-seconds", type=float, default=0.0, help="a step takes at least so long")
    given = options.parse_args()
    CHECKPOINTS.mkdir(parents=True, exist_ok=True)
    first, state = restore()
    print(f"begins with step {first}", flush=True)
    for step in range(first, given.steps):
        began = time.monotonic()
        loss = train_step(step, state)
        if (step + 1) % given.save_every == 0 or is_wanted():
            save(step + 1, state)
        if PROGRESS:
            Path(PROGRESS).write_text(f"{(step + 1) / given.steps:.3f} step={step + 1} loss={loss:.4f}")
        print(f"step {step + 1} loss {loss:.6f}", flush=True)
        time.sleep(max(0.0, given.step_seconds - (time.monotonic() - began)))
    OUTPUTS.mkdir(parents=True, exist_ok=True)
    np.savez(OUTPUTS / "weights.npz", **{name: value for name, value in state.items() if "." not in name})


if __name__ == "__main__":
    main()
