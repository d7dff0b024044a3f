"""Every attention backend against a float64 oracle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.ops.attention import BACKENDS, attention, merge


def _qkv(n=5, s=12, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((2, length, 3, 16)).astype(np.float32) for length in (n, s, s)]


def _oracle(q, k, v, valid):
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    logits = np.einsum("bnkd,bskd->bkns", q, k) / np.sqrt(q.shape[-1])
    logits = np.where(valid[:, None, None], logits, -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    out = np.einsum("bkns,bskd->bnkd", weights / weights.sum(-1, keepdims=True), v)
    return out, (np.log(weights.sum(-1)) + logits.max(-1)).transpose(0, 2, 1)


@pytest.mark.parametrize("backend", sorted(BACKENDS))
@pytest.mark.parametrize("ranges", [None, [[0, 4], [7, 12]], [[0, 0], [3, 5]], [[[0, 4], [7, 12]], [[2, 3], [3, 9]]]])
def test_matches_the_oracle(backend, ranges):
    q, k, v = _qkv()
    valid = np.ones((2, 12), bool)
    if ranges is not None:
        per_sample = np.broadcast_to(np.asarray(ranges), (2, 2, 2))
        valid = np.array([[any(a <= i < b for a, b in r) for i in range(12)] for r in per_sample])
        k, v = (np.where(valid[..., None, None], x, np.nan) for x in (k, v))  # absent keys may hold anything
    out, lse = attention(
        *map(jnp.asarray, (q, k, v)), kv_ranges=None if ranges is None else jnp.array(ranges), backend=backend
    )
    expected, expected_lse = _oracle(q, np.nan_to_num(k), np.nan_to_num(v), valid)
    np.testing.assert_allclose(out, expected, atol=1e-5)
    np.testing.assert_allclose(lse, expected_lse, atol=1e-5)


@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_no_valid_key_gives_zero_and_joins_nothing(backend):
    q, k, v = map(jnp.asarray, _qkv())
    nothing = attention(q, k * jnp.nan, v, kv_ranges=jnp.zeros((2, 2), int), backend=backend)
    assert (nothing[0] == 0).all()
    some = attention(q, k, v, backend=backend)
    out, lse = merge([nothing, some])
    assert (out == some[0]).all() and (lse == some[1]).all()


@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_merged_parts_equal_the_whole(backend):
    q, k, v = map(jnp.asarray, _qkv())
    parts = [attention(q, k[:, a:b], v[:, a:b], backend=backend) for a, b in ((0, 3), (3, 4), (4, 12))]
    out, lse = merge(parts)
    whole = attention(q, k, v, backend=backend)
    np.testing.assert_allclose(out, whole[0], atol=1e-6)
    np.testing.assert_allclose(lse, whole[1], atol=1e-6)


def test_gradients_stay_finite_beside_poisoned_keys():
    q, k, v = map(jnp.asarray, _qkv())
    k, v = k.at[:, 6:].set(jnp.nan), v.at[:, 6:].set(jnp.nan)

    def loss(q, k, v):
        return (attention(q, k, v, kv_ranges=jnp.array([[0, 6], [0, 0]]))[0] ** 2).sum()

    grads = jax.grad(loss, argnums=(0, 1, 2))(q, k, v)
    assert all(jnp.isfinite(g).all() for g in grads)
    assert (grads[1][:, 6:] == 0).all() and jnp.abs(grads[1][:, :6]).max() > 0


def test_unknown_backend_is_named():
    q, k, v = map(jnp.asarray, _qkv())
    with pytest.raises(ValueError, match="'magic' is not one of .*xla"):
        attention(q, k, v, backend="magic")
