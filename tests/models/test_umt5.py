"""The umT5 encoder against transformers, with random weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.config import TextConfig
from relic_jax.models import layers, module, umt5

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tests.weights_convert.peers import params_of, torch_umt5  # noqa: E402 (it imports torch)

# attention_dim differs from dim, so that the two can't be mixed up.
CFG = TextConfig(vocab=97, dim=48, attention_dim=64, ffn_dim=80, heads=4, layers=3, length=24)


def oracle(cfg):
    torch.manual_seed(0)
    model = torch_umt5(cfg)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "layer_norm" in name:
                p.copy_(1 + 0.2 * torch.randn_like(p))
            elif "relative_attention_bias" in name:
                p.copy_(torch.randn_like(p))
            elif p.ndim == 2 and "shared" not in name and "embed_tokens" not in name:
                p.copy_(torch.randn_like(p) * p.shape[1] ** -0.5 * 0.7)
    return model


def batch(cfg, lengths, seed=0):
    ids = np.random.default_rng(seed).integers(3, cfg.vocab, (len(lengths), cfg.length))
    mask = np.arange(cfg.length)[None] < np.asarray(lengths)[:, None]
    return np.where(mask, ids, 0).astype(np.int32), mask


@pytest.fixture(scope="module")
def both():
    model = oracle(CFG)
    return model, params_of("umt5-xxl", CFG, model.state_dict())


@pytest.mark.parametrize("lengths", [(24, 24), (24, 7, 1)])
def test_parity_with_transformers(both, lengths):
    model, params = both
    ids, mask = batch(CFG, lengths)
    with torch.no_grad():
        expected = model(torch.tensor(ids), attention_mask=torch.tensor(mask)).last_hidden_state.numpy()
    got = np.asarray(umt5.encode(params, CFG, jnp.asarray(ids), jnp.asarray(mask)))
    assert 0.3 < expected[mask].std() < 3
    assert np.abs(got - expected)[mask].max() <= 1e-4
    assert (got[~mask] == 0).all()


def test_long_sequences_use_every_bucket(both):
    model, params = both
    cfg = dataclasses.replace(CFG, length=300)
    ids, mask = batch(cfg, (300, 170), seed=1)
    with torch.no_grad():
        expected = model(torch.tensor(ids), attention_mask=torch.tensor(mask)).last_hidden_state.numpy()
    got = np.asarray(umt5.encode(params, cfg, jnp.asarray(ids), jnp.asarray(mask)))
    assert np.abs(got - expected)[mask].max() <= 1e-4


def test_padding_ids_change_nothing(both):
    _, params = both
    ids, mask = batch(CFG, (24, 7))
    other = np.where(mask, ids, 5).astype(np.int32)
    a, b = (umt5.encode(params, CFG, jnp.asarray(x), jnp.asarray(mask)) for x in (ids, other))
    np.testing.assert_array_equal(a, b)


def test_a_row_of_padding_only_is_zero_not_nan(both):
    _, params = both
    ids, mask = batch(CFG, (0, 3))
    assert (np.asarray(umt5.encode(params, CFG, jnp.asarray(ids), jnp.asarray(mask)))[0] == 0).all()


def test_bfloat16_products_stay_near_float32(both):
    _, params = both
    ids, mask = map(jnp.asarray, batch(CFG, (24, 7)))
    exact = umt5.encode(params, CFG, ids, mask)
    near = umt5.encode(layers.cast_kernels(params, jnp.bfloat16), CFG, ids, mask)
    assert near.dtype == jnp.float32
    error = float(jnp.abs(near - exact).max())
    assert 0 < error < 0.1


@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (16, 64), (32, 20)])
def test_buckets_equal_transformers(buckets, max_distance):
    config = transformers.UMT5Config(
        d_model=8, d_kv=4, num_heads=2, relative_attention_num_buckets=buckets,
        relative_attention_max_distance=max_distance,
    )  # fmt: skip
    layer = transformers.models.umt5.modeling_umt5.UMT5Attention
    attention = layer(config, has_relative_attention_bias=True, layer_idx=0)
    n = 600
    relative = torch.arange(n)[None, :] - torch.arange(n)[:, None]
    expected = attention._relative_position_bucket(relative).numpy()
    got = umt5.relative_position_bucket(n, buckets, max_distance)
    np.testing.assert_array_equal(got, expected)
    assert got.max() == buckets - 1 and got.min() == 0


def test_xxl_is_described_without_allocating():
    tree = module.abstract(umt5.UMT5, TextConfig.umt5_xxl())
    assert sum(leaf.size for leaf in jax.tree.leaves(tree)) == 5_680_910_336
    axes = module.logical_axes(umt5.UMT5, TextConfig.umt5_xxl())
    assert axes["blocks"]["attention"]["q"]["kernel"] == ("layers", "embed", "heads")
    assert axes["embedding"] == ("vocab", "embed")
