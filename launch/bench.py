"""Measures speed and memory on this machine.

    python -m launch.bench stream --config=configs/tiny.py [--checkpoint=DIR] [--blocks=101] [--plot=PNG] [--json=FILE]
    python -m launch.bench replay-memory [--config=configs/relic_1_3b.py --device=h100] [--lengths=2,5,10,20]
        [--plot=PNG] [--json=FILE]
    python -m launch.bench serve [--config=configs/tiny.py] [--checkpoint=DIR] [--sessions=1,2,4,8] [--blocks=101]
        [--json=FILE]
    python -m launch.bench cpu-peers [--rows=dit,vae_encode,vae_decode,umt5] [--dtypes=f32,bf16] [--repeats=5]

`stream`: a session of so many blocks, decoded, as `launch.generate` runs it. Prints the time of each block (the first
compiles), frames per second without the first, and peak memory; the time of a block must not grow with its number.
JSON keys: blocks, frames, compile_s, steady_fps, block_median_s, block_25_35_s, block_90_100_s, peak_rss_bytes.

`replay-memory`: temporary memory of a rollout's gradient, replayed block by block and all blocks at once, for rollouts
of several lengths, as XLA accounts for it (`bench_replay`). Nothing runs, so a GPU need not be there; JAX's CUDA plugin
must. JSON keys: replay_temp_bytes.<blocks>, monolithic_temp_bytes.<blocks>, replay_growth, monolithic_growth (the
longest over the shortest).

`serve`: a server (`launch.serve`) and so many viewers at once, who show frames in real time and press keys
(`bench_serve`); figures are of what comes after the first 21 blocks, when memory is full. JSON keys: `<sessions>.` and
first_frame_s; arrival_, latency_ (key to picture), block_ (the server's time for one) p50_s, p95_s, p99_s; on_time
(share of frames there at their time, at the model's frames a second), stall_s, watched_s, viewer_fps, frame_bytes,
server_rss_bytes, server_rss_growth (at the end over after the first 21 blocks).

`cpu-peers`: Wan 2.1's models against diffusers' and transformers', torch eager and torch.compile, on the CPU with the
same shapes, weights and number of threads; outputs are compared first, compilation is excluded (`bench_peers`).
JSON keys: `<row>.<dtype>.` and ours_s, eager_s, compile_s, ratio_vs_eager, ratio_vs_compile (time ours / time theirs).
"""

from __future__ import annotations

import resource
import sys
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
from relic_jax.errors import InputError
from relic_jax.models import bundle
from relic_jax.stream import Session

_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", str(Path(relic_jax.__file__).parent / "assets" / "tiny"), "folder of the model"
)
_BLOCKS = flags.DEFINE_integer("blocks", 101, "how many blocks, at least 2", lower_bound=2)
_PLOT = flags.DEFINE_string("plot", None, "a plot of the time by block to write, PNG")
_JSON = flags.DEFINE_string("json", None, "file for the figures")
_DEVICE = flags.DEFINE_string("device", "cpu", "replay-memory: cpu, or the GPU to compile for, as h100")
_LENGTHS = flags.DEFINE_list("lengths", ["2", "5", "10", "20"], "replay-memory: blocks of a rollout, ascending")
_SESSIONS = flags.DEFINE_list("sessions", ["1"], "serve: numbers of viewers at once, one after another")
_ROWS = flags.DEFINE_list("rows", ["dit", "vae_encode", "vae_decode", "umt5"], "cpu-peers: which rows of its table")
_DTYPES = flags.DEFINE_list("dtypes", ["f32", "bf16"], "cpu-peers: which of f32, bf16")
_REPEATS = flags.DEFINE_integer("repeats", 5, "cpu-peers: how often each is timed", lower_bound=1)


def stream(argv: Sequence[str]) -> None:
    """Time and memory of a long session."""
    del argv
    cfg = cli.load_config(RelicConfig)
    cli.check_outputs({"plot": _PLOT.value, "json": _JSON.value}, {"checkpoint": _CHECKPOINT.value})
    if _PLOT.value:
        cli.pyplot()
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


def cpu_peers(argv: Sequence[str]) -> None:
    """Our models beside PyTorch's."""
    del argv
    for flag in (_ROWS, _DTYPES):
        unknown = set(flag.value) - set(flag.default)
        if unknown or not flag.value:
            raise InputError(f"--{flag.name}={','.join(flag.value)}: expected some of {', '.join(flag.default)}")
    if _JSON.value:
        cli.check_writable(_JSON.value)
    jax.config.update("jax_platforms", "cpu")
    from launch import bench_peers  # PyTorch and its models are not everybody's

    figures = bench_peers.compare(_ROWS.value, _DTYPES.value, _REPEATS.value)
    if _JSON.value:
        cli.write_json(_JSON.value, figures)


def replay_memory(argv: Sequence[str]) -> None:
    """Memory of the replayed and the monolithic gradient."""
    del argv
    cfg = cli.load_config(RelicConfig)
    cli.check_outputs({"plot": _PLOT.value, "json": _JSON.value}, {})
    lengths = [int(blocks) for blocks in _LENGTHS.value if blocks.isdecimal()]
    if len(lengths) < max(len(_LENGTHS.value), 2) or lengths != sorted(set(lengths)) or lengths[0] < 1:
        raise InputError(f"--lengths={','.join(_LENGTHS.value)}: expected two or more ascending numbers from 1 on")
    if _PLOT.value:
        cli.pyplot()
    jax.config.update("jax_platforms", "cpu")  # a GPU that is there isn't needed either
    from launch import bench_replay

    found = bench_replay.measure(cfg, lengths, _DEVICE.value)
    print("\n" + bench_replay.table(cfg, lengths, found, _DEVICE.value))
    if _PLOT.value:
        bench_replay.plot(_PLOT.value, f"{cfg.name}, compiled for {_DEVICE.value}", lengths, found)
    if _JSON.value:
        cli.write_json(_JSON.value, bench_replay.figures(lengths, found))


def serve(argv: Sequence[str]) -> None:
    """Viewers of a server."""
    del argv
    cfg = cli.load_config(RelicConfig)
    cli.check_outputs({"json": _JSON.value}, {"checkpoint": _CHECKPOINT.value})
    sessions = [int(count) for count in _SESSIONS.value if count.isdecimal()]
    if not sessions or len(sessions) < len(_SESSIONS.value) or min(sessions) < 1:
        raise InputError(f"--sessions={','.join(_SESSIONS.value)}: expected numbers from 1 on")
    skip = cfg.memory.horizon // cfg.stream.block + 1
    if _BLOCKS.value < skip + 2:
        raise InputError(f"--blocks={_BLOCKS.value}: expected at least {skip + 2}, memory is full after {skip - 1}")
    from launch import bench_serve  # the server is not everybody's

    overrides = [argument for argument in sys.argv[1:] if argument.startswith(("--config", "--checkpoint"))]
    figures = {}
    for count in sessions:
        found = bench_serve.measure(overrides, count, _BLOCKS.value, skip)
        print(f"\n{count} viewer(s), {_BLOCKS.value} blocks each, the first {skip} left out")
        print("\n".join(f"  {name:18s} {value:.4g}" for name, value in found.items()), flush=True)
        figures |= {f"{count}.{name}": value for name, value in found.items()}
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
    pyplot = cli.pyplot()
    figure, axes = pyplot.subplots(figsize=(7, 3), layout="constrained")
    axes.plot(range(1, len(seconds)), seconds[1:], ".-", linewidth=0.8)
    axes.axvline(horizon, color="grey", linestyle="--", linewidth=0.8)
    axes.text(horizon, 0, " horizon: memory is full", color="grey", verticalalignment="bottom")
    axes.set(xlabel="block", ylabel="seconds a block", ylim=(0, None))
    figure.savefig(path, dpi=120)


COMMANDS = {"stream": stream, "replay-memory": replay_memory, "serve": serve, "cpu-peers": cpu_peers}

if __name__ == "__main__":
    cli.run_commands(COMMANDS, configured=dict.fromkeys(("stream", "replay-memory", "serve"), "configs/tiny.py"))
