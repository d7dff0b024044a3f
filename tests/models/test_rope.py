"""RoPE against diffusers, YaRN, and positions that grow without end."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.config import DiTConfig
from relic_jax.models import rope
from relic_jax.models.dit import grid_angles

CFG = DiTConfig.wan_14b()


def test_axis_split_is_wan():
    assert [2 * w for w in rope.axis_widths(128)] == [44, 42, 42]


def test_angles_match_diffusers():
    torch = pytest.importorskip("torch")
    from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed

    cos, sin = WanRotaryPosEmbed(128, (1, 2, 2), 64)(torch.zeros(1, 16, 5, 8, 12))
    ours = grid_angles(CFG, jnp.arange(5), 4, 6)
    np.testing.assert_allclose(ours[0], cos[0, :, 0, 0::2].numpy(), atol=1e-6)
    np.testing.assert_allclose(ours[1], sin[0, :, 0, 1::2].numpy(), atol=1e-6)


def test_yarn_with_scale_one_is_plain_rope_bit_for_bit():
    plain = 1e4 ** -(np.arange(0, 44, 2, dtype=np.float64) / 44)
    assert (rope.temporal_frequencies(CFG) == plain).all()


def test_yarn_divides_low_frequencies_and_keeps_high_ones():
    plain = rope.temporal_frequencies(CFG)
    scaled = rope.temporal_frequencies(dataclasses.replace(CFG, yarn_scale=4.0))
    ratio = plain / scaled
    turns = 21 * plain / (2 * np.pi)
    assert (np.diff(ratio) >= -1e-12).all()
    np.testing.assert_allclose(ratio[turns > 1.3], 1)
    np.testing.assert_allclose(ratio[turns < 0.45], 4)


def test_positions_far_out_stay_exact():
    positions = np.array([0, 1, 1023, 1024, 1025, 99_999, 1_000_003])
    angle = positions[:, None] * rope.temporal_frequencies(CFG)
    cos, sin = rope.temporal_angles(CFG, jnp.asarray(positions))
    np.testing.assert_allclose(cos, np.cos(angle), atol=5e-7)
    np.testing.assert_allclose(sin, np.sin(angle), atol=5e-7)


def test_rotation_keeps_length_and_depends_on_distance_only():
    rng = np.random.default_rng(0)
    q, k = (jnp.asarray(rng.standard_normal((1, 1, 1, 128)), jnp.float32) for _ in range(2))

    def score(i, j):
        a, b = (rope.temporal_angles(CFG, jnp.array([p])) for p in (i, j))
        space = rope.spatial_angles(CFG, np.array([2.5]), np.array([7.0]))
        return jnp.vdot(rope.rotate(q, rope.join(a, space)), rope.rotate(k, rope.join(b, space)))

    np.testing.assert_allclose(score(5, 3), score(700_005, 700_003), atol=1e-4)
    assert abs(score(5, 3) - score(5, 4)) > 1e-3
    here = rope.join(
        rope.temporal_angles(CFG, jnp.array([9])), rope.spatial_angles(CFG, np.array([1.0]), np.array([1.0]))
    )
    np.testing.assert_allclose(jnp.linalg.norm(rope.rotate(q, here)), jnp.linalg.norm(q), rtol=1e-6)
