"""Places, sizes and positions of remembered tokens."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.config import ConfigError, MemoryConfig, RelicConfig, StreamConfig
from relic_jax.memory import compress
from relic_jax.memory.layout import CoarseGrid, layout


def _config(**memory):
    return dataclasses.replace(RelicConfig.wan_14b(), memory=MemoryConfig(**memory))


def test_relic_keeps_a_quarter_of_the_tokens():
    full, relic = layout(_config(mode="full")), layout(_config())
    tokens = 1560
    assert full.ring == 72 * tokens
    # 72 latents at a mean cost of 1/6, and what padding 30 rows to 32 adds: 104 tokens for 97.5.
    assert relic.ring == 4 * (tokens + 5 * 390 + 12 * 104)
    assert relic.ring + 8 * tokens == pytest.approx(31_200, rel=0.02)


def test_a_coarse_token_stands_at_its_cells_centre():
    grid = CoarseGrid(4, 30, 52)
    assert grid.shape == (8, 13)
    rows, columns = grid.centres()
    assert sorted(set(rows)) == [1.5, 5.5, 9.5, 13.5, 17.5, 21.5, 25.5, 29.0]  # the last is clipped to the grid
    assert columns[:2].tolist() == [1.5, 5.5]
    assert CoarseGrid(1, 3, 2).centres().T.tolist() == [[r, c] for r in range(3) for c in range(2)]


@pytest.mark.parametrize("block", [1, 2, 4])
@pytest.mark.parametrize("mode", ["relic", "full"])
def test_places_tile_the_ring_once(block, mode):
    cfg = dataclasses.replace(_config(mode=mode), stream=StreamConfig(block=block))
    lay = layout(cfg)
    places = np.concatenate([p.place[: p.count] for p in lay.phases])
    assert sorted(places) == list(range(lay.ring))
    assert lay.coarse == max(p.count for p in lay.phases)


def test_ring_is_whole_periods_and_holds_the_horizon():
    for horizon in (8, 44, 80, 116):
        lay = layout(_config(horizon=horizon))
        assert lay.capacity == horizon - 8 and lay.capacity % 18 == 0 and lay.capacity % 4 == 0


@pytest.mark.parametrize(
    ("horizon", "nearest"), [(40, r"8 \(no memory\) and 44"), (12, r"8 \(no memory\) and 44"), (100, "80 and 116")]
)
def test_a_horizon_that_the_ring_would_round_is_refused_with_the_nearest(horizon, nearest):
    with pytest.raises(ConfigError, match=f"memory.horizon={horizon} can't be had: .* the nearest are {nearest}$"):
        _config(horizon=horizon)
    for mode in ("full", "window"):  # there every multiple of a block is exact
        assert layout(_config(horizon=horizon, mode=mode)).capacity == (horizon - 8 if mode == "full" else 0)


def test_sources_name_the_pooled_patch():
    cfg = RelicConfig.tiny()
    lay = layout(cfg)
    latents = np.random.default_rng(0).standard_normal((1, 4, 8, 12, 16)).astype(np.float32)
    bank = compress.latent_bank(jnp.asarray(latents), 2)
    phase = lay.phases[0]  # factors 1, 4, 2, 4
    tokens = np.asarray(bank)[0, phase.source[: phase.count]]
    assert phase.count == 24 + 2 + 6 + 2
    np.testing.assert_allclose(tokens[0], latents[0, 0, :2, :2].reshape(-1), rtol=1e-6)
    # The second latent, pooled by 4: its 8 rows become 2, its 12 columns 3, padded to 4 by the edge.
    pooled = latents[0, 1].reshape(2, 4, 3, 4, 16).mean((1, 3))
    np.testing.assert_allclose(tokens[24], pooled[:, :2].reshape(-1), rtol=1e-5, atol=1e-6)
    assert phase.latent[24] == 1 and phase.centre[:, 24].tolist() == [1.5, 1.5]


def test_without_keeping_the_picture_it_has_no_place():
    assert layout(_config(keep_picture=False)).picture == 0
