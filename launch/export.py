"""Takes weights out of training runs.

    python -m launch.export weights --workdir=runs/tiny_vae --out=vae.safetensors [--dtype=bfloat16]
    python -m launch.export bundle --config=configs/tiny.py --dit=runs/tiny_causal --vae=runs/tiny_vae \\
        --text=data/latents/train/text.safetensors --tokenizer=data/latents/train/tokenizer.json --card=CARD.md \\
        --out=relic_jax/assets/tiny --dtype=bfloat16

    python -m launch.export curves --runs=runs/tiny_vae,runs/tiny_teacher --out=curves.png
    python -m launch.export compact --workdir=runs/tiny_teacher_5s --out=DIR
    python -m launch.export workdir --compact=DIR --out=runs/tiny_teacher_5s

`weights` writes the moving average of one run to a file. `bundle` makes the folder that `launch.generate` and
`Session.open` take; --dit, --vae and --text are workdirs or safetensors files. `curves` draws how runs went, one panel
each: the loss, and what was measured on held-out clips. `compact` writes a run's newest checkpoint to files of 15 MB at
most, and `workdir` makes of them a workdir in which `launch.train` goes on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import flags

from launch import cli
from relic_jax.config import RelicConfig
from relic_jax.errors import InputError
from relic_jax.models import bundle as bundles
from relic_jax.models import module, tokenizer, weights
from relic_jax.train import checkpoint, compact, metrics

_PANELS = 5  # of `curves` in a row
_OUT = flags.DEFINE_string(
    "out",
    None,
    "weights, curves: the file to write; bundle, compact: the folder, which must be new; workdir: the folder",
    required=True,
)
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "stored dtype")
_WORKDIR = flags.DEFINE_string("workdir", None, "weights, compact: a training run's folder")
_PARTS = {
    part: flags.DEFINE_string(part, None, f"bundle: workdir or safetensors file of the {what}")
    for part, what in (("dit", "transformer"), ("vae", "VAE"), ("text", "text encoder"))
}
_TOKENIZER = flags.DEFINE_string("tokenizer", None, "bundle: tokenizer.json")
_RUNS = flags.DEFINE_list("runs", [], "curves: training runs' folders, in the order of the panels")
_COMPACT = flags.DEFINE_string("compact", None, "workdir: the folder that `compact` wrote")
_CARD = flags.DEFINE_string("card", None, "bundle: the model card, Markdown")


def write_weights(argv: Sequence[str]) -> None:
    """The moving average of one run."""
    del argv
    cli.check_outputs({"out": _OUT.value}, {})
    step, params, config = checkpoint.read(cli.needed(_WORKDIR))
    metadata = {"format": "relic-jax", "step": str(step), "config": json.dumps(config)}
    weights.save_safetensors(_OUT.value, params, metadata, jnp.dtype(_DTYPE.value))
    print(f"{_OUT.value}: {sum(1 for _ in weights.leaves(params))} tensors of step {step} as {_DTYPE.value}")


def write_bundle(argv: Sequence[str]) -> None:
    """A whole model."""
    del argv
    cfg = cli.load_config(RelicConfig)
    card = Path(cli.needed(_CARD))
    if not card.is_file():
        raise InputError(f"--card={card}: expected a Markdown file, there is none")
    parts = {"dit": cfg.dit, "vae": cfg.vae, "text": cfg.text}
    params = {
        part: checkpoint.load_params(cli.needed(_PARTS[part]), module.abstract(bundles.PARTS[part], of))
        for part, of in parts.items()
    }
    tokens = tokenizer.load(cli.needed(_TOKENIZER))
    text = card.read_text(encoding="utf-8")
    bundles.save(_OUT.value, bundles.Bundle(cfg, params, tokens), text, jnp.dtype(_DTYPE.value))
    size = sum(file.stat().st_size for file in Path(_OUT.value).iterdir())
    print(f"{_OUT.value}: {size / 1e6:.1f} MB")


def draw_curves(argv: Sequence[str]) -> None:
    """How runs went."""
    del argv
    if not _RUNS.value:
        raise InputError("--runs is needed: one or more training runs' folders")
    cli.check_writable(_OUT.value)
    pyplot = cli.pyplot()
    rows = [_rows(name) for name in _RUNS.value]
    columns = min(len(rows), _PANELS)
    lines = -(-len(rows) // columns)
    size = {"figsize": (3.6 * columns, 2.8 * lines), "layout": "constrained"}
    _, panels = pyplot.subplots(lines, columns, squeeze=False, **size)
    for panel in panels.flat[len(rows) :]:
        panel.remove()
    for panel, name, run in zip(panels.flat, _RUNS.value, rows, strict=False):
        _draw(panel, Path(name).name, run)
    pyplot.savefig(_OUT.value, dpi=110)
    print(f"{_OUT.value}: {len(rows)} runs")


def _rows(workdir: str) -> list[dict[str, int | float]]:
    try:
        rows = metrics.read(Path(workdir))
    except OSError as error:
        raise InputError(f"{workdir}: expected a training run's folder with metrics.jsonl: {error.strerror}") from error
    if not any("loss" in row for row in rows):
        raise InputError(f"{workdir}: metrics.jsonl holds no step yet")
    return rows


def _draw(panel: Any, title: str, rows: list[dict[str, int | float]]) -> None:
    steps, losses = np.array([(row["step"], row["loss"]) for row in rows if "loss" in row]).T
    width = max(1, len(losses) // 100)  # smooth enough to see where it goes
    means = np.convolve(losses, np.ones(width) / width, "valid")
    panel.plot(steps[width - 1 :], means, color="tab:grey", linewidth=0.9)
    panel.set(title=title, xlabel="step", yscale="log" if means.min() > 0 else "linear")  # one in decibels is negative
    panel.set_ylabel("loss", color="tab:grey")
    held_out = [row for row in rows if any(name.startswith("val_") for name in row)]
    for name in [name for name in (held_out[-1] if held_out else {}) if name.startswith("val_")][-1:]:
        other = panel.twinx()
        other.plot([row["step"] for row in held_out], [row[name] for row in held_out], "o-", markersize=3)
        other.set_ylabel(f"{name} ({held_out[-1][name]:.2f})", color="tab:blue")


def write_compact(argv: Sequence[str]) -> None:
    """A run's newest checkpoint, small."""
    del argv
    out = Path(_OUT.value)
    step = compact.write(Path(cli.needed(_WORKDIR)), out)
    sizes = [file.stat().st_size for file in out.iterdir()]
    print(f"{out}: step {step}, {sum(sizes) / 1e6:.1f} MB in {len(sizes)} files of at most {max(sizes) / 1e6:.1f} MB")


def read_compact(argv: Sequence[str]) -> None:
    """The workdir of a run that goes on from one."""
    del argv
    step = compact.read(Path(cli.needed(_COMPACT)), Path(_OUT.value))
    print(f"{_OUT.value}: goes on from step {step}")


COMMANDS = {
    "weights": write_weights,
    "bundle": write_bundle,
    "curves": draw_curves,
    "compact": write_compact,
    "workdir": read_compact,
}

if __name__ == "__main__":
    cli.run_commands(COMMANDS, configured={"bundle": "configs/tiny.py"})
