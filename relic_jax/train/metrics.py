"""What a run writes while it goes on: metrics.jsonl, TensorBoard events and sample pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image


class Writer:
    """Writes into `workdir`; picks up after `step`, dropping what a killed run wrote beyond it.

    metrics.jsonl holds nothing that depends on the clock: a run that was interrupted and resumed leaves
    the same file, byte for byte, as one that was not.
    """

    def __init__(self, workdir: Path, step: int) -> None:
        import tensorboardX  # takes seconds where torch is installed, and bad input should be said before

        path = workdir / "metrics.jsonl"
        _drop_beyond(path, step)
        self._lines = path.open("a")
        self._events = tensorboardX.SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1)
        self._samples = workdir / "samples"
        self._samples.mkdir(exist_ok=True)

    def line(self, step: int, values: Mapping[str, float]) -> None:
        """One line of metrics.jsonl: {"step": ..., name: value ...}."""
        self._lines.write(json.dumps({"step": step, **values}) + "\n")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Curves for TensorBoard; also makes the lines so far visible to readers."""
        for name, value in values.items():
            self._events.add_scalar(name, value, step)
        self.flush()

    def images(self, step: int, images: Mapping[str, UInt8[np.ndarray, "H W 3"]]) -> None:
        """samples/<name>_<step>.png, and the same in TensorBoard."""
        for name, image in images.items():
            path = self._samples / f"{name}_{step:07d}.png"
            temporary = path.with_suffix(".tmp")
            Image.fromarray(image).save(temporary, format="PNG")
            temporary.replace(path)
            self._events.add_image(name, image, step, dataformats="HWC")

    def flush(self) -> None:
        self._lines.flush()

    def close(self) -> None:
        self._lines.close()
        self._events.close()


def read(workdir: Path) -> list[dict[str, int | float]]:
    """The lines of a run's metrics.jsonl."""
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def _drop_beyond(path: Path, step: int) -> None:
    if not path.exists():
        return
    temporary = path.with_suffix(".tmp")
    with path.open() as lines, temporary.open("w") as kept:
        kept.writelines(line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step)
    temporary.replace(path)
