"""How much memory the gradient of a rollout takes, replayed and all at once, by the compiler's own account.

`launch.bench replay-memory` prints it. Nothing runs: both gradients are compiled for rollouts of several lengths,
and XLA says how many bytes of temporary buffers each needs beyond its inputs and results. Activations within a
block are recomputed layer by layer in both, the best that the monolithic gradient can do.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from jaxtyping import Array

from launch import cli
from relic_jax.config import RelicConfig
from relic_jax.models import module
from relic_jax.models.conditioning import Conditions
from relic_jax.models.dit import DiT
from relic_jax.models.layers import cast_kernels
from relic_jax.models.module import Params
from relic_jax.parallel.hardware import absent_devices, find
from relic_jax.parallel.mesh import MeshShape
from relic_jax.stream import rollout as stream
from relic_jax.train import replay

GIB = 2**30


def monolithic_gradient(
    params: Params, cfg: RelicConfig, rollout: replay.Rollout, score_grads: replay.Blocks, *, checkpoint: bool = False
) -> tuple[Params, replay.Blocks]:
    """What `replay_gradient` computes, by differentiating all blocks at once: memory grows with their number."""
    given = rollout.conditions

    def video(p: Params) -> replay.Blocks:
        def block(
            state: stream.State, conditions: Conditions, noisy: Array, clean: Array
        ) -> tuple[stream.State, Array]:
            made, _ = stream.predict(p, cfg, state, noisy, rollout.exit_step, conditions, checkpoint=checkpoint)
            return stream.write(params, cfg, state, clean, conditions), made

        begin = stream.start(cfg, rollout.clean[0, :, 0], given.text, jax.random.key(0), given.pose_weight)
        return stream.scan_blocks(cfg, block, begin, given, rollout.noisy, rollout.clean)[1]

    made, vjp = jax.vjp(video, params)
    (gradient,) = vjp(score_grads)
    return jax.tree.map(lambda g: g.astype(jnp.float32), gradient), made


GRADIENTS = {"replay": replay.replay_gradient, "monolithic": monolithic_gradient}


def measure(cfg: RelicConfig, lengths: Sequence[int], device: str = "cpu") -> dict[str, list[int]]:
    """Temporary bytes of each gradient, for one clip of so many blocks.

    Args:
      device: "cpu", or the name of a GPU that need not be there (`parallel.hardware`).

    Raises:
      InputError: there is no such GPU, or JAX's CUDA plugin is missing.
    """
    target = jax.devices("cpu")[0] if device == "cpu" else absent_devices(find(device), MeshShape())[0]
    where = jax.sharding.SingleDeviceSharding(target)
    platform = "cpu" if device == "cpu" else "cuda"
    found: dict[str, list[int]] = {name: [] for name in GRADIENTS}
    with tqdm.tqdm(total=len(GRADIENTS) * len(lengths), desc=f"compiling for {device}") as bar:
        for name, gradient in GRADIENTS.items():
            for blocks in lengths:
                # What the replayed latents are compared with is not needed to train, and costs a forward pass.
                function = jax.jit(lambda *x, of=gradient: of(x[0], cfg, *x[1:], checkpoint=True)[0])
                arguments = jax.tree.map(
                    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), _abstract(cfg, blocks)
                )
                lowered = function.trace(*arguments).lower(lowering_platforms=(platform,))
                found[name].append(lowered.compile().memory_analysis().temp_size_in_bytes)
                bar.update()
    return found


def _abstract(cfg: RelicConfig, blocks: int) -> tuple:
    """Shapes of what the gradients take: parameters in compute precision, a rollout, its scores."""
    params = jax.eval_shape(partial(cast_kernels, dtype=cfg.precision.compute), module.abstract(DiT, cfg.dit))
    length = blocks * cfg.stream.block

    def make(params: module.Params) -> tuple:
        picture = jnp.zeros((1, *cfg.latent_size, cfg.dit.latent_channels))
        text = jnp.zeros((1, cfg.dit.text_len, cfg.dit.text_dim))
        given = Conditions.of(text, jnp.zeros((1, length, 52)), jnp.zeros((1, length, 48)))
        rollout = replay.roll_out(params, cfg, picture, given, jax.random.key(0), jnp.int32(0))
        return rollout, rollout.clean

    return (params, *jax.eval_shape(make, params))


def table(cfg: RelicConfig, lengths: Sequence[int], found: dict[str, list[int]], device: str) -> str:
    """The figures as text."""
    lines = [
        f"{cfg.name} ({cfg.dit.dim} wide, {cfg.dit.layers} layers), memory.mode={cfg.memory.mode}, one clip at "
        f"{cfg.video.height} x {cfg.video.width}, compiled for {device}: temporary memory in GiB",
        f"{'blocks':>8s}{'seconds':>9s}" + "".join(f"{name:>14s}" for name in found),
    ]
    for index, blocks in enumerate(lengths):
        seconds = blocks * cfg.stream.block * cfg.vae.temporal_stride / cfg.video.fps
        values = "".join(f"{found[name][index] / GIB:14.4g}" for name in found)
        lines.append(f"{blocks:8d}{seconds:9.3g}" + values)
    return "\n".join(lines)


def figures(lengths: Sequence[int], found: dict[str, list[int]]) -> dict[str, int | float]:
    """Flat: `<gradient>_temp_bytes.<blocks>`, and by how much the longest rollout's exceeds the shortest's."""
    flat: dict[str, int | float] = {
        f"{name}_temp_bytes.{blocks}": sizes[index]
        for name, sizes in found.items()
        for index, blocks in enumerate(lengths)
    }
    return flat | {f"{name}_growth": sizes[-1] / sizes[0] for name, sizes in found.items()}


def plot(path: str, title: str, lengths: Sequence[int], found: dict[str, list[int]]) -> None:
    """Memory against the number of blocks, PNG."""
    pyplot = cli.pyplot()
    figure, axes = pyplot.subplots(figsize=(5, 3), layout="constrained")
    for name, sizes in found.items():
        axes.plot(lengths, np.array(sizes) / GIB, "o-", label=name)
    axes.set(title=title, xlabel="blocks", ylabel="temporary memory, GiB", ylim=(0, None), xticks=lengths)
    axes.legend()
    figure.savefig(path, dpi=120)
