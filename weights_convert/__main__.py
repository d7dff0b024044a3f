"""Published weights in and out.

    python -m weights_convert download --model wan-t2v-1.3b --dst downloads/wan
    python -m weights_convert to-relic --model wan-t2v-1.3b --src downloads/wan --dst weights/dit --verify
    python -m weights_convert to-torch --model wan-t2v-1.3b --src weights/dit --dst out/transformer --layout diffusers

`to-relic` reads a file or folder in Wan's or in diffusers' layout and makes a folder that takes the place of a
training run's: `launch.train --config.init_from=weights/dit`. `to-torch` also takes a training run's folder or a
safetensors file of this project. Interrupted, the same command goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import flags

from launch import cli
from relic_jax.config import from_config_dict
from relic_jax.errors import InputError
from weights_convert import download as downloads
from weights_convert.tables import MODELS, Model
from weights_convert.to_relic import to_relic
from weights_convert.to_torch import to_torch

_MODEL = flags.DEFINE_enum("model", None, list(MODELS), "which model", required=True)
_SRC = flags.DEFINE_string("src", None, "to-relic, to-torch: file or folder of the weights")
_DST = flags.DEFINE_string("dst", None, "folder to make; download: where to put the files", required=True)
_DTYPE = flags.DEFINE_enum(
    "dtype", None, ["float32", "bfloat16"], "to-relic: of matrices (float32); to-torch: of all (None: what they had)"
)
_LAYOUT = flags.DEFINE_enum(
    "layout",
    "auto",
    ["auto", *sorted({layout for model in MODELS.values() for layout in model.layouts})],
    "the published form; auto: found out, or the one it came in",
)
_VERIFY = flags.DEFINE_bool("verify", False, "to-relic: compare the result with the source, bit for bit")
_CONFIG = flags.DEFINE_string("config", None, "JSON file with the fields in which the model differs from --model's")


def convert_to_relic(argv: Sequence[str]) -> None:
    """Published weights to a folder of this project."""
    del argv
    name, src, dst = _MODEL.value, Path(cli.needed(_SRC)), Path(_DST.value)
    dtype = _DTYPE.value or "float32"

    def convert() -> None:
        done = to_relic(name, src, dst, model=_model(), dtype=dtype, layout=_LAYOUT.value, verify=_VERIFY.value)
        words = [f"{done.converted} tensors from the {done.layout} layout", f"{done.bytes / 1e9:.3g} GB as {dtype}"]
        words += ["every bit as in the source"] if _VERIFY.value else []
        words += [f"{done.initialised} tensors of RELIC's own begin untrained"] if done.initialised else []
        words += [f"left out {key}: {reason}" for key, reason in done.ignored.items()]
        print(f"{dst}: {'; '.join(words)}")

    _interruptible(convert, "to-relic")


def convert_to_torch(argv: Sequence[str]) -> None:
    """Weights of this project to files for PyTorch."""
    del argv
    src, dst = Path(cli.needed(_SRC)), Path(_DST.value)

    def convert() -> None:
        done = to_torch(src, dst, model=_model(), dtype=_DTYPE.value, layout=_LAYOUT.value)
        extra = f", {done.extra} of them RELIC's own" if done.extra else ""
        print(f"{dst}: {done.tensors} tensors{extra} in the {done.layout} layout, {', '.join(done.files)}")

    _interruptible(convert, "to-torch")


def download(argv: Sequence[str]) -> None:
    """Published weights from the network."""
    del argv
    model = MODELS[_MODEL.value]
    layout = next(iter(model.layouts)) if _LAYOUT.value == "auto" else _LAYOUT.value
    folder = downloads.download(_MODEL.value, Path(_DST.value), model=model, layout=layout)
    print(f"{folder}: {model.layouts[layout].repository}, {', '.join(downloads.patterns(model.layouts[layout]))}")


def _model() -> Model:
    model = MODELS[_MODEL.value]
    if _LAYOUT.value not in ("auto", *model.layouts):
        raise InputError(f"--layout={_LAYOUT.value}: {_MODEL.value} is published as {', '.join(model.layouts)}")
    if _CONFIG.value is None:
        return model
    try:
        fields = json.loads(Path(_CONFIG.value).read_text(encoding="utf-8"))
        changed = from_config_dict(type(model.config), dataclasses.asdict(model.config) | fields)
    except (ValueError, TypeError) as error:
        raise InputError(f"{_CONFIG.value}: {error}") from error
    return dataclasses.replace(model, config=changed)


def _interruptible(convert: Callable[[], None], command: str) -> None:
    try:
        convert()
    except KeyboardInterrupt as error:
        raise InputError(
            f"interrupted; {_DST.value} is not made, the same {command} command goes on from here"
        ) from error


def main() -> None:
    cli.run_commands({"to-relic": convert_to_relic, "to-torch": convert_to_torch, "download": download})


if __name__ == "__main__":
    main()
