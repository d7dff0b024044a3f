"""Our models beside diffusers' and transformers' on this machine's CPU; `launch.bench cpu-peers` runs it.

A row is one function on the same shapes and the same random weights, converted by `weights_convert`. Ours, torch
eager and torch.compile are each run once, which compiles, and their outputs compared: what differs is not timed.
Then they take turns, and the median of each is reported. Nothing else may run on the machine meanwhile.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from relic_jax.config import DiTConfig, TextConfig, VAEConfig
from relic_jax.errors import InputError
from relic_jax.models import umt5, vae
from relic_jax.models.conditioning import Conditions
from relic_jax.models.dit import DiT
from relic_jax.models.layers import cast_kernels
from relic_jax.models.module import Params, bind
from weights_convert.state_dict import params_of
from weights_convert.tables import MODELS, Model

try:
    import diffusers
    import torch
    import transformers
except ImportError as error:
    raise InputError(
        f'cpu-peers compares with PyTorch models, and {error.name} is not there: pip install "relic-jax[test]"'
    ) from error

DTYPES = {"f32": "float32", "bf16": "bfloat16"}
# Largest root-mean-square difference from the peer in float32, in its standard deviations.
# In bf16 the peers' own rounding is in it: 0.068 for umT5's random weights.
TOLERANCE = {"f32": 1e-4, "bf16": 1e-1}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What is timed: Wan 2.1's own widths, with few layers and on little.

    Fields:
      latents: frames, rows and columns that the transformer denoises; four make one token.
      video: latent frames, rows and columns of pixels.
    """

    dit: DiTConfig = dataclasses.replace(DiTConfig.wan_1_3b(), layers=2)
    latents: tuple[int, int, int] = (4, 30, 52)
    vae: VAEConfig = VAEConfig.wan()
    video: tuple[int, int, int] = (2, 64, 96)
    # Of the vocabulary 1024 words: looking words up takes no time, and holding them all 4 GB.
    text: TextConfig = dataclasses.replace(TextConfig.umt5_xxl(), layers=2, vocab=1024)


@dataclasses.dataclass(frozen=True)
class Row:
    """One comparison.

    Fields:
      what: its size in words.
      model: the converter's description of the model.
      build: makes the peer.
      ours: (params, *inputs) to an array. theirs: (peer, *inputs) to a tensor.
      inputs: arrays of both, ours channels last.
      options: of XLA, for ours.
    """

    what: str
    model: Model
    build: Callable[[dict[str, Any]], torch.nn.Module]
    ours: Callable[..., jax.Array]
    theirs: Callable[..., torch.Tensor]
    inputs: Sequence[np.ndarray]
    options: Mapping[str, bool] = dataclasses.field(default_factory=dict)


def rows(sizes: Sizes) -> dict[str, Row]:
    """The table's rows by name."""
    made = {"dit": _dit, "vae_encode": _vae_encode, "vae_decode": _vae_decode, "umt5": _umt5}
    return {name: make(sizes) for name, make in made.items()}


def _dit(sizes: Sizes) -> Row:
    cfg, (length, height, width) = sizes.dit, sizes.latents

    def ours(params: Params, latents: jax.Array, t: jax.Array, text: jax.Array) -> jax.Array:
        # What lets RELIC's conditions in is zero in published weights; they are computed all the same.
        conditions = Conditions.of(text, jnp.ones((1, length, 52)), jnp.ones((1, length, 48)))
        return bind(DiT, cfg, params).video(latents, jnp.broadcast_to(t, (1, length)), conditions)

    return Row(
        f"{cfg.layers} layers, {length * height * width // 4} tokens",
        dataclasses.replace(MODELS["wan-t2v-1.3b"], config=cfg),
        diffusers.WanTransformer3DModel.from_config,
        ours,
        lambda peer, latents, t, text: peer(latents, t, text, return_dict=False)[0],
        [_normal(1, *sizes.latents, cfg.latent_channels), np.float32([500]), _normal(1, cfg.text_len, cfg.text_dim)],
    )


def _vae_encode(sizes: Sizes) -> Row:
    cfg, (latents, height, width) = sizes.vae, sizes.video
    frames = cfg.frames_of(latents)

    def ours(params: Params, video: jax.Array) -> jax.Array:
        video = video.astype(params["encoder"]["conv_in"]["kernel"].dtype)
        return jnp.concatenate(vae.encode_moments(params, cfg, video), -1)

    return Row(
        f"{frames} frames of {height}x{width}",
        dataclasses.replace(MODELS["wan-vae"], config=cfg),
        diffusers.AutoencoderKLWan.from_config,
        ours,
        lambda peer, video: peer.encode(video, return_dict=False)[0].parameters,
        [_normal(1, frames, height, width, 3).clip(-1, 1)],
        vae.ONEDNN,
    )


def _vae_decode(sizes: Sizes) -> Row:
    cfg, (latents, height, width) = sizes.vae, sizes.video
    stride = cfg.spatial_stride

    def ours(params: Params, sample: jax.Array) -> jax.Array:
        sample = sample.astype(params["decoder"]["conv_in"]["kernel"].dtype)
        return jnp.clip(vae.decode_sample(params, cfg, sample), -1, 1)

    return Row(
        f"{cfg.frames_of(latents)} frames of {height}x{width}",
        dataclasses.replace(MODELS["wan-vae"], config=cfg),
        diffusers.AutoencoderKLWan.from_config,
        ours,
        lambda peer, sample: peer.decode(sample, return_dict=False)[0],
        [_normal(1, latents, height // stride, width // stride, cfg.latent_channels)],
        vae.ONEDNN,
    )


def _umt5(sizes: Sizes) -> Row:
    cfg = sizes.text
    ids = np.random.default_rng(0).integers(0, cfg.vocab, (1, cfg.length), np.int32)
    return Row(
        f"{cfg.layers} layers, {cfg.length} tokens",
        dataclasses.replace(MODELS["umt5-xxl"], config=cfg),
        lambda config: transformers.UMT5EncoderModel(transformers.UMT5Config(**config, dropout_rate=0.0)),
        lambda params, ids, mask: umt5.encode(params, cfg, ids, mask),
        lambda peer, ids, mask: peer(ids, attention_mask=mask).last_hidden_state,
        [ids, np.ones(ids.shape, bool)],
    )


def compare(names: Sequence[str], dtypes: Sequence[str], repeats: int, sizes: Sizes = Sizes()) -> dict[str, float]:
    """Runs the rows, prints the table and returns its figures, keyed `<row>.<dtype>.<figure>`.

    Figures: `ours_s`, `eager_s`, `compile_s` are medians in seconds; `ratio_vs_eager` and `ratio_vs_compile` are time
    ours / time theirs. Those of torch.compile are left out where it doesn't work.

    Args:
      names: of `rows`. dtypes: of `DTYPES`. repeats: how many times each is timed.

    Raises:
      RuntimeError: an output differs from its peer's.
    """
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch.set_num_threads(threads)
    versions = ", ".join(f"{x.__name__} {x.__version__}" for x in (jax, torch, diffusers, transformers))
    figures, table, notes = {}, [], []
    for name, dtype in tqdm.tqdm([(name, dtype) for name in names for dtype in dtypes], unit="row"):
        row = rows(sizes)[name]
        seconds, note = measure(f"{name}.{dtype}", row, dtype, repeats)
        table.append(_line(name, dtype, seconds, row.what))
        notes += [note] if note else []
        figures |= {f"{name}.{dtype}.{key}_s": value for key, value in seconds.items()}
        for key in seconds.keys() - {"ours"}:
            figures[f"{name}.{dtype}.ratio_vs_{key}"] = seconds["ours"] / seconds[key]
    print(f"\n{threads} threads each; {versions}; medians of {repeats}, compilation and the first run excluded")
    print(f"{'':16s}{'ours':>9s}{'eager':>9s}{'compile':>9s}{'ours/eager':>12s}{'ours/compile':>14s}")
    print("\n".join([*table, *dict.fromkeys(notes)]))
    return figures


@torch.inference_mode()
def measure(name: str, row: Row, dtype: str, repeats: int) -> tuple[dict[str, float], str]:
    """Median seconds of `ours`, `eager` and `compile`, and why the last is missing if it is.

    Raises:
      RuntimeError: an output differs from the peer's in float32.
    """
    peer = _peer(row)
    params = cast_kernels(params_of(row.model, {key: x.numpy() for key, x in peer.state_dict().items()}), DTYPES[dtype])
    inputs = [torch.from_numpy(_channels_first(x)) for x in row.inputs]
    exact = row.theirs(peer, *inputs).numpy()
    inputs = _cast(peer, inputs, getattr(torch, DTYPES[dtype]))
    ours, arrays = jax.jit(row.ours, compiler_options=row.options), jax.device_put(list(row.inputs))
    compiled = torch.compile(row.theirs, dynamic=False)
    runs: dict[str, Callable[[], Any]] = {
        "ours": lambda: ours(params, *arrays).block_until_ready(),
        "eager": lambda: row.theirs(peer, *inputs),
        "compile": lambda: compiled(peer, *inputs),
    }
    reason = _why_not(runs["compile"])
    if reason:
        del runs["compile"]
    for key, run in runs.items():
        output = _channels_first(np.asarray(run(), np.float32)) if key == "ours" else run().float().numpy()
        error = float(np.sqrt(np.mean((output - exact) ** 2)) / exact.std())
        if not error <= TOLERANCE[dtype]:
            raise RuntimeError(f"{name}: {key} differs from float32 by {error:.2g} rms, at most {TOLERANCE[dtype]}")
    seconds: dict[str, list[float]] = {key: [] for key in runs}
    for _ in range(repeats):
        for key, run in runs.items():
            begun = time.perf_counter()
            run()
            seconds[key].append(time.perf_counter() - begun)
    return {key: statistics.median(values) for key, values in seconds.items()}, reason


def _peer(row: Row) -> torch.nn.Module:
    """The peer with random weights that keep activations of unit scale; biases and gains are no zeros and ones."""
    torch.manual_seed(0)
    peer = row.build(row.model.layouts["diffusers"].config(row.model.config)).eval()
    for parameter in peer.parameters():
        if parameter.numel() == max(parameter.shape):
            parameter.add_(0.1 * torch.randn_like(parameter))
        else:
            parameter.normal_(std=(parameter.shape[0] / parameter.numel()) ** 0.5)
    return peer


def _cast(peer: torch.nn.Module, inputs: Sequence[torch.Tensor], dtype: torch.dtype) -> list[torch.Tensor]:
    """Casts as `from_pretrained(torch_dtype=...)` does: what diffusers keeps in float32 stays."""
    kept = getattr(peer, "_keep_in_fp32_modules", None) or [] if isinstance(peer, diffusers.ModelMixin) else []
    for key, parameter in peer.named_parameters():
        if not any(part in key.split(".") for part in kept):
            parameter.data = parameter.data.to(dtype)
    return [x.to(dtype) if x.is_floating_point() else x for x in inputs]


def _why_not(run: Callable[[], Any]) -> str:
    """Why torch.compile doesn't work here; empty if it does."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler.split()[0]) is None:
        return f"torch.compile is not measured: it needs a C++ compiler, and {compiler} is not there"
    try:
        run()
    except torch._dynamo.exc.TorchDynamoException as error:
        return f"torch.compile is not measured: {str(error).strip().splitlines()[0]}"
    return ""


def _channels_first(x: np.ndarray) -> np.ndarray:
    """Videos from our layout to PyTorch's; what else there is stays as it is."""
    return np.ascontiguousarray(np.moveaxis(x, -1, 1)) if x.ndim == 5 else x


def _line(name: str, dtype: str, seconds: dict[str, float], what: str) -> str:
    ours = seconds["ours"]
    times = "".join(f"{seconds[key]:8.3f}s" if key in seconds else f"{'-':>9s}" for key in ("ours", "eager", "compile"))
    ratios = [f"{ours / seconds[key]:.2f}" if key in seconds else "-" for key in ("eager", "compile")]
    return f"{name:11s}{dtype:5s}{times}{ratios[0]:>12s}{ratios[1]:>14s}   {what}"


def _normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)
