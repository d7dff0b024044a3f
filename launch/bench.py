"""Measures speed and memory on this machine.

    python -m launch.bench stream --config=configs/tiny.py [--checkpoint=DIR] [--blocks=101] [--plot=PNG] [--json=FILE]

`stream`: a session of so many blocks, decoded, as `launch.generate` runs it. Prints the time of each block (the first
compiles), frames per second without the first, and peak memory; the time of a block must not grow with its number.
JSON keys: blocks, frames, compile_s, steady_fps, block_median_s, block_25_35_s, block_90_100_s, peak_rss_bytes.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import tqdm
from absl import flags

import relic_jax
from launch import cli
from relic_jax.config import RelicConfig
from relic_jax.models import bundle
from relic_jax.stream import Session

_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", str(Path(relic_jax.__file__).parent / "assets" / "tiny"), "folder of the model"
)
_BLOCKS = flags.DEFINE_integer("blocks", 101, "how many blocks, at least 2", lower_bound=2)
_PLOT = flags.DEFINE_string("plot", None, "a plot of the time by block to write, PNG")
_JSON = flags.DEFINE_string("json", None, "file for the figures")


def stream(argv: Sequence[str]) -> None:
    """Time and memory of a long session."""
    del argv
    cfg = cli.load_config(RelicConfig)
    for path in filter(None, (_PLOT.value, _JSON.value)):
        cli.check_writable(path)
    session = Session.open(bundle.load(_CHECKPOINT.value, cfg), _picture(cfg), "a room with grey walls")
    size = cfg.stream.block * 4
    seconds = []
    for block in tqdm.trange(_BLOCKS.value, unit="block"):
        begun = time.perf_counter()
        frames = size if block else size - 4
        for _ in session.play(f"wl-{frames}"):
            seconds.append(time.perf_counter() - begun)
    figures = _figures(np.array(seconds), session.frames, size)
    device = jax.devices()[0]
    print(f"\n{_BLOCKS.value} blocks of {size} frames on {device.device_kind}, {jax.device_count()} device(s)")
    print("\n".join(f"  {name:16s} {value:.4g}" for name, value in figures.items()))
    print("\nblock  seconds")
    print("\n".join(f"{i:5d}  {seconds[i]:.4f}" for i in [0, 1, *range(10, len(seconds), 10)]))
    if _PLOT.value:
        _plot(_PLOT.value, seconds, cfg.memory.horizon // cfg.stream.block)
    if _JSON.value:
        cli.write_json(_JSON.value, figures)


def _figures(seconds: np.ndarray, frames: int, size: int) -> dict[str, float | int]:
    later = seconds[1:]
    figures = {
        "blocks": len(seconds),
        "frames": frames,
        "compile_s": float(seconds[0] - np.median(later)),
        "steady_fps": size * len(later) / float(later.sum()),
        "block_median_s": float(np.median(later)),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    if len(seconds) > 100:
        figures["block_25_35_s"] = float(np.median(seconds[25:36]))
        figures["block_90_100_s"] = float(np.median(seconds[90:101]))
    return figures


def _picture(cfg: RelicConfig) -> np.ndarray:
    """Any picture does: the time doesn't depend on it."""
    rows, columns = np.mgrid[-1 : 1 : cfg.video.height * 1j, -1 : 1 : cfg.video.width * 1j]
    return np.stack([rows, columns, rows * columns], axis=-1).astype(np.float32)


def _plot(path: str, seconds: list[float], horizon: int) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3), layout="constrained")
    axes.plot(range(1, len(seconds)), seconds[1:], ".-", linewidth=0.8)
    axes.axvline(horizon, color="grey", linestyle="--", linewidth=0.8)
    axes.text(horizon, 0, " horizon: memory is full", color="grey", verticalalignment="bottom")
    axes.set(xlabel="block", ylabel="seconds a block", ylim=(0, None))
    figure.savefig(path, dpi=120)


COMMANDS = {"stream": stream}

if __name__ == "__main__":
    cli.run_commands(COMMANDS, configured={"stream": "configs/tiny.py"})
