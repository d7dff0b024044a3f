"""A stage that trains in milliseconds, and a program that trains it: `python -m tests.train.toy WORKDIR`."""

import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from relic_jax.config import RelicConfig
from relic_jax.parallel.part import WHOLE, Part
from relic_jax.train import abstract, loop
from relic_jax.train.optimizer import OptimizerConfig
from relic_jax.train.run import SupervisedStage
from relic_jax.train.vae import VAERunConfig


class ToyBatches:
    """Random regression problems; `before(index)` is called ahead of every batch, `broken_at` one holds a NaN."""

    def __init__(
        self,
        seed: int,
        broken_at: int = -1,
        before: Callable[[int], object] = lambda index: None,
        part: Part = WHOLE,
    ) -> None:
        self.seed, self.index, self.broken_at, self.before, self.part = seed, 0, broken_at, before, part

    def __next__(self) -> dict[str, np.ndarray]:
        self.before(self.index)
        x = np.random.default_rng((self.seed, self.index)).normal(size=(8, 16)).astype(np.float32)
        if self.index == self.broken_at:
            x[0, 0] = np.nan
        self.index += 1
        x = np.split(x, self.part.count)[self.part.index]
        return {"x": x, "y": np.sin(x[:, :1])}

    def get_state(self) -> dict[str, int]:
        return {"index": self.index}

    def set_state(self, state: dict[str, int]) -> None:
        self.index = state["index"]


class Toy(SupervisedStage):
    """Two dense layers, noise on the input."""

    def __init__(self, cfg=None, width: int = 32, broken_at: int = -1, before=lambda index: None) -> None:
        super().__init__(cfg or config())
        self.width, self.broken_at, self.before = width, broken_at, before

    axes = {"hidden": {"w": (None, None), "b": (None,)}, "out": {"w": (None, None)}, "mean": (None,)}

    @property
    def parameters(self):
        shapes = jax.eval_shape(self.weights, jax.random.key(0))
        return jax.tree.map(lambda leaf, axes: abstract.Leaf(leaf.shape, leaf.dtype, axes), shapes, self.axes)

    def abstract(self):
        batch = {"x": jax.ShapeDtypeStruct((8, 16), jnp.float32), "y": jax.ShapeDtypeStruct((8, 1), jnp.float32)}
        return abstract.Arguments(self.abstract_state(), {}, abstract.rows(batch))

    def weights(self, key):
        first, second = jax.random.split(key)
        return {
            "hidden": {"w": jax.random.normal(first, (16, self.width)) / 4, "b": jnp.zeros(self.width)},
            "out": {"w": jax.random.normal(second, (self.width, 1)) / 8},
            "mean": jnp.zeros(1),
        }

    def loss(self, params, batch, rng):
        x = batch["x"] + 0.1 * jax.random.normal(rng["noise"], batch["x"].shape)
        error = jnp.tanh(x @ params["hidden"]["w"] + params["hidden"]["b"]) @ params["out"]["w"] - batch["y"]
        return jnp.mean(error**2), {"worst": jnp.max(jnp.abs(error))}

    def batches(self, seed, part=WHOLE):
        return ToyBatches(seed, self.broken_at, self.before, part)

    def evaluate(self, params, frozen, key):
        return {"norm": float(jnp.sum(params["hidden"]["w"] ** 2))}

    def sample(self, params, frozen, key):
        return {"grid": np.full((4, 6, 3), 128, np.uint8)}

    def finish(self, params):
        return {**params, "mean": jnp.full(1, 3.0)}


OPTIMIZER = OptimizerConfig(learning_rate=1e-2, warmup=5, schedule="cosine")


def config(optimizer=None, **fields) -> VAERunConfig:
    values = {
        "stage": "vae", "model": RelicConfig.tiny(), "data": "", "data_val": "", "steps": 40, "batch": 8, "frames": 1,
        "log_every": 7, "sample_every": 15, "save_every": 10,
        "optimizer": dataclasses.replace(OPTIMIZER, **(optimizer or {})),
    }  # fmt: skip
    return VAERunConfig(**(values | fields))


if __name__ == "__main__":
    loop.train(Toy(before=lambda index: time.sleep(0.05)), Path(sys.argv[1]))
