"""What the tests on eight virtual devices share: the meshes, a small model with eight heads, and quick compilation."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np

from relic_jax.config import DiTConfig, MemoryConfig, PrecisionConfig, RelicConfig, StreamConfig, TextConfig
from relic_jax.models import module
from relic_jax.models.dit import DiT
from relic_jax.parallel import mesh as meshes
from relic_jax.parallel.rules import SERVING
from tests.small import frames_of

MESHES = ["seq=8", "data=2,seq=2,tensor=2", "fsdp=8", "fsdp=2,seq=4"]
BATCH = 8

CFG = dataclasses.replace(
    RelicConfig.tiny(),
    dit=DiTConfig(dim=128, ffn_dim=64, heads=8, layers=2, text_len=4, text_dim=8, cond_dim=8, freq_dim=16),
    text=dataclasses.replace(TextConfig.tiny(), dim=8, length=4),
    memory=MemoryConfig(window=4, horizon=10, schedule=(1, 4, 2)),
    stream=StreamConfig(block=2, timesteps=(1000.0, 625.0)),
    precision=PrecisionConfig(compute="float32", cache="float32"),
)

# Half of the time of these tests is LLVM's; collectives and results don't depend on how hard it tries.
_QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def random_weights(seed=0):
    rng = np.random.default_rng(seed)
    shapes = module.abstract(DiT, CFG.dit)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(scale=0.1, size=leaf.shape), leaf.dtype), shapes)


def clips(latents):
    """A batch of `data.loader.latent_batches`, all random."""
    rng, frames = np.random.default_rng(2), frames_of(latents)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=(BATCH, *shape)), jnp.float32)

    return {
        "latents": normal(latents, *CFG.latent_size, 16),
        "text": normal(CFG.dit.text_len, CFG.dit.text_dim),
        "actions": jnp.abs(normal(frames, 13)),
        "rotations": jnp.linalg.qr(normal(frames, 3, 3))[0],
        "positions": normal(frames, 3),
        "unit": jnp.ones((BATCH,)),
    }


def make(text):
    return meshes.make(meshes.MeshShape.parse(text))


def compile_quickly(function, *arguments):
    """Ahead of time; JAX then puts other things than arrays into the dataclasses, which the type checks refuse."""
    with untyped():
        return function.lower(*arguments).compile(_QUICK)


@contextlib.contextmanager
def untyped():
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def divided(mesh, x):
    """An array with samples first, on the mesh."""
    return jax.device_put(x, jax.NamedSharding(mesh, SERVING.spec(("batch",))))


def relative_error(ours, expected):
    """The largest difference over the largest value; where nothing is expected, the difference itself."""
    ours, expected = np.asarray(ours), np.asarray(expected)
    return np.abs(ours - expected).max() / (np.abs(expected).max() or 1.0)


def check_same(found, expected):
    """Every scalar and every leaf of a state within 1e-5 of one device's."""
    (state, scalars), (trees, values) = found, expected
    for name, value in values.items():
        assert relative_error(scalars[name], value) < 1e-5, name
    for name, tree in trees.items():
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        for (path, theirs), ours in zip(leaves, jax.tree.leaves(state.trees()[name]), strict=True):
            assert relative_error(ours, theirs) < 1e-5, (name, jax.tree_util.keystr(path))
