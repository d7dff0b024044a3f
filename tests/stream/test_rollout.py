"""The stream against what it must equal: one packed forward, its own rebuilt cache, itself after a hundred blocks."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.camera import actions as camera_actions
from relic_jax.camera import poses as camera_poses
from relic_jax.config import DiTConfig, MemoryConfig, PrecisionConfig, RelicConfig, StreamConfig, TextConfig
from relic_jax.memory.layout import layout
from relic_jax.models import rope
from relic_jax.models.attention import AttentionPattern
from relic_jax.models.conditioning import Conditions
from relic_jax.models.dit import DiT, grid_angles, patchify
from relic_jax.models.module import bind, init
from relic_jax.stream import rollout

pytestmark = pytest.mark.usefixtures("compile_once")

DIT = DiTConfig(dim=48, ffn_dim=64, heads=2, layers=2, text_len=4, text_dim=8, cond_dim=8, freq_dim=16)
TEXT = dataclasses.replace(TextConfig.tiny(), dim=8, length=4)
SCHEDULE = (1, 4, 2)


def config(mode="relic", compress="latent", block=2, window=4, horizon=10, **stream):
    """A very small model on the tiny world's 4 x 6 grid; the schedule's period of 3 keeps the ring short."""
    return dataclasses.replace(
        RelicConfig.tiny(),
        dit=DIT,
        text=TEXT,
        memory=MemoryConfig(mode=mode, compress=compress, window=window, horizon=horizon, schedule=SCHEDULE),
        stream=StreamConfig(block=block, timesteps=(1000.0, 625.0), **stream),
        precision=PrecisionConfig(compute="float32", cache="float32"),
    )


@functools.cache
def params():
    """Random weights; the zero-initialised projections are filled so that actions and poses matter."""
    tree = init(DiT, DIT, jax.random.key(0))
    for name in ("action", "pose"):
        projection = tree["blocks"][name]["proj"]
        projection["kernel"] = 0.3 * jax.random.normal(jax.random.key(1), projection["kernel"].shape)
    return tree


def walk(blocks, cfg, seed=0):
    """Random single-key actions [1, T, 13]; the picture's are static."""
    rng = np.random.default_rng(seed)
    frames = blocks * cfg.stream.block * 4
    actions = np.eye(13, dtype=np.float32)[rng.integers(0, 13, frames)]
    actions[:4] = camera_actions.static_actions(4)
    return jnp.asarray(actions)[None]


def begin(cfg, seed=3):
    keys = jax.random.split(jax.random.key(7))
    image = jax.random.normal(keys[0], (1, *cfg.latent_size, 16))
    return rollout.start(cfg, image, jax.random.normal(keys[1], (1, 4, 8)), jax.random.key(seed))


step, write = (jax.jit(f, static_argnums=1) for f in (rollout.step, rollout.write))


def run(cfg, blocks, seed=3):
    """The final state and the latents [1, L, h, w, C] of a stream."""
    state, made = begin(cfg, seed), []
    for actions in jnp.split(walk(blocks, cfg), blocks, axis=1):
        state, latents = step(params(), cfg, state, actions)
        made.append(latents)
    return state, jnp.concatenate(made, axis=1)


@pytest.mark.parametrize("block", [1, 2, 4])
def test_full_memory_equals_one_packed_block_causal_forward(block):
    cfg = config("full", block=block, window=2 * block, horizon=8 * block)
    blocks = 5
    state, latents = run(cfg, blocks)
    lay = layout(cfg)
    length = blocks * block
    actions = walk(blocks, cfg)
    rotations, positions = camera_actions.poses_from_actions(actions, cfg.stream.translation_unit)
    poses = camera_poses.group(camera_poses.pose_vectors(rotations, positions))
    conditions = Conditions.of(state.text, camera_poses.group(actions), poses)
    model = bind(DiT, DIT, params())
    angles = grid_angles(DIT, jnp.arange(length), *lay.grid)
    owner = np.arange(length * lay.tokens_per_latent) // lay.tokens_per_block
    seen = owner[:, None] >= owner[None]

    class BlockCausal(AttentionPattern):
        def __call__(self, q, k, v, _):
            return attend(q, k, v)

    def attend(q, k, v):
        q, k = rope.rotate(q, angles), rope.rotate(k, angles)
        logits = jnp.where(seen, jnp.einsum("bnkd,bskd->bkns", q, k) * DIT.head_dim**-0.5, -jnp.inf)
        return jnp.einsum("bkns,bskd->bnkd", jax.nn.softmax(logits), v), (k, v)

    _, (k, v) = model(
        patchify(latents, 2),
        jnp.zeros((1, length)),
        conditions,
        to_tokens=lambda x: jnp.repeat(x, lay.tokens_per_latent, axis=1),
        attend=BlockCausal(),
    )
    remembered = (blocks - 1) * lay.tokens_per_block
    for ours, packed in ((state.cache.k, k), (state.cache.v, v)):
        memory = ours[:, :, lay.picture : lay.picture + remembered]
        np.testing.assert_allclose(memory, packed[:, :, :remembered], atol=1e-4)
        window = ours[:, :, lay.memory : lay.memory + lay.tokens_per_block]
        np.testing.assert_allclose(window, packed[:, :, remembered:], atol=1e-4)


@pytest.mark.parametrize(("mode", "block"), [("relic", 1), ("relic", 2), ("relic", 4), ("window", 2), ("full", 2)])
def test_cache_rebuilt_from_latents_is_the_cache_as_streamed(mode, block):
    cfg = config(mode, block=block, window=2 * block, horizon=5 * block)
    blocks = 7
    state, latents = run(cfg, blocks)
    rebuilt = rollout.rebuild(params(), cfg, begin(cfg), latents, walk(blocks, cfg))
    streamed, again = (jax.tree.leaves((s.cache, s.recent)) for s in (state, rebuilt))
    for a, b in zip(streamed, again, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    after, rebuilt_after = (step(params(), cfg, s, walk(1, cfg, 5))[1] for s in (state, rebuilt))
    np.testing.assert_allclose(after, rebuilt_after, atol=1e-4)


@pytest.mark.parametrize(
    ("mode", "compress"), [("relic", "latent"), ("relic", "kv"), ("full", "latent"), ("window", "latent")]
)
def test_absent_tokens_change_nothing(mode, compress):
    cfg = config(mode, compress)
    clean = begin(cfg)
    poisoned = dataclasses.replace(
        clean,
        cache=jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), clean.cache),
    )
    for actions in jnp.split(walk(7, cfg), 7, axis=1):  # past the horizon of 10 latents
        clean, expected = step(params(), cfg, clean, actions)
        poisoned, latents = step(params(), cfg, poisoned, actions)
        assert (latents == expected).all()


@pytest.mark.parametrize("compress", ["latent", "kv"])
def test_memory_reaches_what_the_window_has_lost(compress):
    """Another first block changes a later one through memory, and without memory not at all."""

    def later(mode, first):
        cfg = config(mode, compress)
        state = begin(cfg)
        still = Conditions.of(state.text, jnp.zeros((1, 2, 52)), jnp.zeros((1, 2, 48)))
        state = write(params(), cfg, state, first, still)
        for _ in range(3):  # these are written as they are, so that only memory carries the difference
            state = write(params(), cfg, state, jnp.ones((1, 2, 8, 12, 16)), still)
        return step(params(), cfg, state, walk(1, cfg))[1]

    a, b = (jax.random.normal(jax.random.key(i), (1, 2, 8, 12, 16)) for i in range(2))
    for mode in ("relic", "full"):
        assert jnp.abs(later(mode, a) - later(mode, b)).max() > 1e-3


@pytest.mark.parametrize(("mode", "compress"), [("relic", "latent"), ("relic", "kv"), ("full", "latent")])
def test_an_fp8_cache_changes_little(mode, compress):
    """Blocks 3 to 6 attend to memory and window; E4M3 rounds a number by 1/16 at most, and attention averages."""
    exact = config(mode, compress)
    coarse = dataclasses.replace(exact, precision=PrecisionConfig(compute="float32", cache="float8_e4m3fn"))
    (_, expected), (state, latents) = run(exact, 7), run(coarse, 7)
    assert all(leaf.dtype == jnp.float8_e4m3fn for leaf in jax.tree.leaves(state.cache))
    error = jnp.linalg.norm(latents - expected) / jnp.linalg.norm(expected)
    assert 0 < error < 0.01


def test_window_mode_has_no_memory():
    cfg = config("window")
    lay = layout(cfg)
    assert (lay.memory, lay.size) == (0, 2 * 24)


def test_picture_is_the_first_latent_and_stays_clean():
    cfg = config()
    state = begin(cfg)
    _, latents = step(params(), cfg, state, walk(1, cfg))
    assert (latents[:, 0] == state.picture).all()


@pytest.mark.parametrize("solver", ["renoise", "euler"])
def test_same_key_same_latents_another_key_others(solver):
    cfg = config(solver=solver)
    one, two, other = (run(cfg, 2, seed)[1] for seed in (1, 1, 2))
    assert (one == two).all()
    assert jnp.abs(one[:, 1:] - other[:, 1:]).max() > 0.1


def test_poses_can_be_withheld():
    cfg = config()
    state = dataclasses.replace(begin(cfg), pose_weight=jnp.zeros((1,)))
    moved = dataclasses.replace(state, position=state.position + 5)
    actions = walk(1, cfg)
    assert (step(params(), cfg, state, actions)[1] == step(params(), cfg, moved, actions)[1]).all()
    given = dataclasses.replace(moved, pose_weight=jnp.ones((1,)))
    assert jnp.abs(step(params(), cfg, given, actions)[1] - step(params(), cfg, moved, actions)[1]).max() > 1e-4


def test_compressed_positions_and_counts_follow_the_schedule():
    cfg = config("relic", block=2, window=4, horizon=10)
    lay = layout(cfg)
    assert lay.capacity == 6 and lay.ring == 2 * (24 + 2 + 6) and lay.picture == 24
    state, _ = run(cfg, 8)
    assert jnp.isfinite(state.cache.k).all()
    past = lay.memory
    # Past the horizon everything is in use, the picture's own place included.
    assert (jnp.abs(state.cache.k[:, :, :past]).sum((0, 1, 3, 4)) > 0).all()


@pytest.mark.parametrize("exit_step", [-1, 2])
def test_an_evaluation_that_does_not_exist_is_refused(exit_step):
    cfg, state = config(), begin(config())
    still = Conditions.of(state.text, jnp.zeros((1, 2, 52)), jnp.zeros((1, 2, 48)))
    with pytest.raises(ValueError, match=f"exit_step={exit_step}: there are 2 evaluations, counted from 0"):
        rollout.denoise(params(), cfg, state, still, exit_step)
