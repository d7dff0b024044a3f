"""Published weights to a checkpoint of this project.

DST is laid out as a training run at step 0, so that whatever takes a run's folder takes it
(`--config.init_from=DST`, `launch.export bundle --dit=DST`):

  DST/checkpoints/0/ema/   the weights (Orbax)
  DST/config.json          the model's configuration
  DST/manifest.json        where every tensor came from: files and their hashes, layout, dtypes, converter
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from relic_jax.errors import InputError
from relic_jax.models import weights
from weights_convert.partial import Partial, check_destination, partial, write_json
from weights_convert.progress import progress
from weights_convert.source import DTYPES, Source, find
from weights_convert.store import Reader, Writer, write_tree
from weights_convert.table import Match, Shape, Tensor, match
from weights_convert.tables import MODELS, Model

CONVERTER_VERSION = 1
WEIGHTS = Path("checkpoints") / "0" / "ema"
MATRICES = ("kernel", "embedding")


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a conversion did: the layout it found, counts of tensors, bytes written."""

    layout: str
    converted: int
    initialised: int
    ignored: dict[str, str]
    bytes: int


def to_relic(
    name: str, src: Path, dst: Path, *, model: Model, dtype: str = "float32", layout: str = "auto", verify: bool = False
) -> Summary:
    """Converts, streaming: one source file is mapped at a time and one of its tensors copied.

    Args:
      name: of the model, for the manifest.
      src: file or folder of the published weights.
      dst: a folder that doesn't exist. The same call goes on with an interrupted one.
      model: what `name` stands for.
      dtype: float32, or bfloat16 for matrices; norms, biases and modulation are always float32.
      layout: a name in `model.layouts`, or auto.
      verify: read the result back and compare it with the source, bit for bit, before it gets its name.

    Raises:
      InputError: the source doesn't fit or the destination can't be written; `dst` is as it was.
    """
    check_destination(dst)
    layout, source, plan = open_source(name, src, model, layout)
    key = {
        "format": "relic-jax weights",
        "converter_version": CONVERTER_VERSION,
        "model": name,
        "layout": layout,
        "dtype": dtype,
        "source": _describe(source.files),
        "config": json.loads(json.dumps(dataclasses.asdict(model.config))),  # tuples become lists
    }
    leaves = {leaf: tuple(x.shape) for leaf, x in weights.leaves(model.leaves())}
    size = sum(math.prod(shape) * stored_dtype(leaf, dtype).itemsize for leaf, shape in leaves.items())
    with partial(dst, key, size) as work:
        folder = work.folder / WEIGHTS
        folder.mkdir(parents=True, exist_ok=True)
        _write(plan, source, leaves, dtype, folder, work)
        write_tree(folder, leaves)
        if verify:
            _verify(plan, source, dtype, folder)
        dtypes = {tensor.place: source.stored[tensor.source].dtype for tensor in plan.tensors}
        made_up = [tensor.place for tensor in plan.initialised]
        manifest = key | {"source_dtypes": dtypes, "initialised": made_up, "ignored": plan.ignored}
        write_json(work.folder / "manifest.json", manifest)
        write_json(work.folder / "config.json", key["config"])
    return Summary(layout, len(plan.tensors), len(plan.initialised), plan.ignored, size)


def open_source(name: str, src: Path, model: Model, layout: str = "auto") -> tuple[str, Source, Match]:
    """The layout, the files and the plan for a source: where each of its tensors goes.

    Raises:
      InputError: there is nothing of this model, or what doesn't fit, all together.
    """
    if not src.exists():
        raise InputError(f"{src} does not exist; expected the weights of {name}, a file or a folder")
    found = {}
    for key in model.layouts if layout == "auto" else [layout]:
        if files := find(src, model.layouts[key]):
            source, tensors = Source(src, files), model.table(key)
            names = {tensor.source for tensor in tensors}
            found[key] = (len(names & source.stored.keys()), source, tensors)
    if not found:
        files = " or ".join(f"{x.folder}/{x.file}".lstrip("/") for x in model.layouts.values())
        raise InputError(f"{src} holds no file of {name}; expected {files}, .safetensors where no ending is said")
    best = max(found, key=lambda key: found[key][0])
    _, source, tensors = found[best]
    ignored = model.layouts[best].ignored
    plan = match(tensors, source.shapes, ignored, str(src), lambda: f" {name}{_hint(name, best, source)}")
    _check_config(source, best, model)
    for tensor in plan.tensors:
        stored = source.stored[tensor.source]
        if stored.dtype not in DTYPES:
            raise InputError(f"{stored.file}: {stored.name} is of dtype {stored.dtype}, expected {', '.join(DTYPES)}")
    return best, source, plan


def stored_dtype(leaf: str, dtype: str) -> np.dtype:
    """The dtype of a leaf at the destination: matrices follow the flag, the rest is small and stays exact."""
    return DTYPES[dtype if leaf.rsplit(".", 1)[-1] in MATRICES else "float32"]


def converted(tensor: Tensor, value: np.ndarray, dtype: str) -> np.ndarray:
    """A source tensor as it is stored here."""
    return tensor.row.transform.to_relic(value).astype(stored_dtype(tensor.target, dtype), order="C", copy=False)


def initial(tensor: Tensor, leaves: dict[str, Shape], dtype: str) -> np.ndarray:
    """What stands in for a tensor that the source doesn't have."""
    assert tensor.row.initial is not None
    shape = leaves[tensor.target] if tensor.index is None else leaves[tensor.target][1:]
    return tensor.row.initial(shape).astype(stored_dtype(tensor.target, dtype))


def _write(plan: Match, source: Source, leaves: dict[str, Shape], dtype: str, folder: Path, work: Partial) -> None:
    writer = Writer(folder)
    for tensor in plan.initialised:
        writer.write(tensor.target, leaves[tensor.target], tensor.index, initial(tensor, leaves, dtype))

    def write(tensor: Tensor, value: np.ndarray) -> None:
        result = converted(tensor, value, dtype)
        if not np.isfinite(result).all():
            stored = source.stored[tensor.source]
            raise InputError(f"{stored.file}: {stored.name} holds NaN or Inf (as {result.dtype}), expected numbers")
        writer.write(tensor.target, leaves[tensor.target], tensor.index, result)
        work.record(tensor.place)

    todo = [tensor for tensor in plan.tensors if tensor.place not in work.done]
    _each("converting", todo, source, write, done=_bytes(plan.tensors, source) - _bytes(todo, source))


def _verify(plan: Match, source: Source, dtype: str, folder: Path) -> None:
    """Compares what is on disk with the source, bit for bit after the cast."""
    reader = Reader(folder)

    def compare(tensor: Tensor, value: np.ndarray) -> None:
        expected, came = converted(tensor, value, dtype), reader.read(tensor.target, tensor.index)
        bits = f"u{expected.itemsize}"  # NaN is like NaN, and 0 unlike -0
        if came.dtype != expected.dtype or not np.array_equal(came.view(bits), expected.view(bits)):
            name = f"{tensor.source} of {source.path}"
            raise InputError(f"{folder}: {tensor.place} isn't {name} bit for bit; the disk or the memory may be bad")

    _each("verifying", plan.tensors, source, compare)


def _each(
    what: str, tensors: Iterable[Tensor], source: Source, work: Callable[[Tensor, np.ndarray], None], done: int = 0
) -> None:
    """Calls `work` with each tensor, file by file, under a progress bar."""
    by_name = {tensor.source: tensor for tensor in tensors}
    with progress(what, done + _bytes(by_name.values(), source), done) as bar:
        for name, value in source.read(by_name):
            work(by_name[name], value)
            bar.update(value.nbytes)
            del value  # before the next one is read


def _check_config(source: Source, layout: str, model: Model) -> None:
    """What shapes don't show: weights of 12 heads fit a model of 24. A source may come without config.json."""
    file, expected = source.files[0].with_name("config.json"), model.layouts[layout].config
    if expected is None or not file.is_file():
        return
    try:
        stored = dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise InputError(f"{file} is not readable: {error}") from error
    wrong = [
        f"{field} is {stored[field]}, expected {value}"
        for field, value in expected(model.config).items()
        if isinstance(value, int | float | list) and stored.get(field, value) != value
    ]
    if wrong:
        raise InputError(f"{file} is of another model: {'; '.join(wrong)}")


def _hint(name: str, asked: str, source: Source) -> str:
    """Says which other model the source is of, or in which other layout, if it is."""
    for other, model in MODELS.items():
        for layout, form in model.layouts.items():
            if other == name and form.rows is model.layouts[asked].rows:
                continue
            wanted = {tensor.source: tensor.shape for tensor in model.table(layout) if tensor.row.initial is None}
            if wanted.items() <= source.shapes.items():
                return f" (it is in the {layout} layout)" if other == name else f" (it is {other})"
    return ""


def _describe(files: list[Path]) -> list[dict[str, Any]]:
    """Names, sizes and hashes."""
    described = []
    with progress("hashing", sum(file.stat().st_size for file in files)) as bar:
        for file in files:
            digest = hashlib.sha256()
            with file.open("rb") as stream:
                while block := stream.read(1 << 24):
                    digest.update(block)
                    bar.update(len(block))
            described.append({"file": file.name, "bytes": file.stat().st_size, "sha256": digest.hexdigest()})
    return described


def _bytes(tensors: Iterable[Tensor], source: Source) -> int:
    return sum(math.prod(x.shape) * DTYPES[source.stored[x.source].dtype].itemsize for x in tensors)
