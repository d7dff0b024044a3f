"""The key-value cache: what is written stays where it can be read, for as long as it should.

Tokens are numbered by their latent, their resolution and their place, so that a buffer says what it remembers.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.config import DiTConfig, MemoryConfig, PrecisionConfig, RelicConfig, StreamConfig
from relic_jax.memory import cache
from relic_jax.memory.layout import layout

pytestmark = pytest.mark.usefixtures("compile_once")

SCHEDULE = (1, 4, 2)
TOKENS = {1: 24, 2: 6, 4: 2}  # of a latent on the 4 x 6 grid, by pooling factor
FIRST = {1: 0, 2: 30, 4: 40}  # a latent's numbers begin at 100 times its index, those of each resolution here
LAYERS, BATCH, HEADS, WIDTH = 2, 1, 2, 24


def config(block=2, window=6, horizon=12, dtype="float32", **memory):
    return dataclasses.replace(
        RelicConfig.tiny(),
        dit=dataclasses.replace(DiTConfig.tiny(), dim=HEADS * WIDTH, heads=HEADS, layers=LAYERS),
        memory=MemoryConfig(window=window, horizon=horizon, schedule=SCHEDULE, **memory),
        stream=StreamConfig(block=block),
        precision=PrecisionConfig(cache=dtype),
    )


def numbers(latent, factor):
    return 100 * latent + FIRST[factor] + np.arange(TOKENS[factor])


def bank(block, size):
    """The numbers of a block's tokens at every resolution, in the order of `compress`."""
    latents = range(block * size, (block + 1) * size)
    return np.concatenate([numbers(latent, factor) for factor in (1, 2, 4) for latent in latents])


def spread(of):
    """Keys that carry a number each, [layers, batch, tokens, heads, width]."""
    return jnp.broadcast_to(jnp.asarray(of, jnp.float32)[:, None, None], (LAYERS, BATCH, len(of), HEADS, WIDTH))


def read(buffer, span=(None, None)):
    """The numbers in a range of tokens, after checking that every layer, head and entry says the same."""
    values = np.asarray(buffer)[:, :, slice(*span)]
    assert (values == values[:1, :, :, :1, :1]).all()
    return values[0, 0, :, 0, 0]


@pytest.mark.parametrize(("block", "keep"), [(1, True), (2, True), (2, False)])
def test_memory_holds_the_latents_of_the_horizon_pooled_by_the_schedule_and_the_picture(block, keep):
    cfg = config(block, keep_picture=keep)
    lay = layout(cfg)
    assert lay.capacity == 6

    @jax.jit
    def remember(buffers, number, tokens):
        coarse = cache.coarse_tokens(cfg, lay, number)
        keys = spread(tokens[coarse.source])
        buffers = cache.write_memory(buffers, lay, number, coarse, keys, -keys, when=jnp.array(True))
        return buffers, cache.memory_range(lay, number + 1)

    buffers = cache.init(cfg, lay, BATCH)
    for number in range(3 * lay.capacity // block):
        buffers, span = remember(buffers, jnp.int32(number), jnp.asarray(bank(number, block), jnp.float32))
        seen = (number + 1) * block
        latents = range(max(0, seen - lay.capacity), seen)
        expected = [numbers(latent, SCHEDULE[latent % len(SCHEDULE)]) for latent in latents]
        if keep and seen > lay.capacity:  # the ring has dropped it
            expected.append(numbers(0, 1))
        expected = np.sort(np.concatenate(expected))
        np.testing.assert_array_equal(np.sort(read(buffers.k, span)), expected)
        np.testing.assert_array_equal(np.sort(-read(buffers.v, span)), expected)


def test_the_last_blocks_are_in_the_window():
    cfg = config()
    lay = layout(cfg)
    tokens = lay.tokens_per_block
    buffers = cache.init(cfg, lay, BATCH)
    for number in range(5):
        keys = spread(1 + number * tokens + np.arange(tokens))
        buffers = cache.write_window(buffers, lay, jnp.int32(number), keys, -keys)
        kept = range(max(0, number - 1), number + 1)  # a window of 3 blocks: two, and the one that is being made
        for earlier in kept:
            k, v = cache.read_window(buffers, lay, jnp.int32(earlier))
            np.testing.assert_array_equal(read(k), 1 + earlier * tokens + np.arange(tokens))
            np.testing.assert_array_equal(read(v), -read(k))
        span = cache.window_range(lay, jnp.int32(number + 1))
        held = np.concatenate([1 + earlier * tokens + np.arange(tokens) for earlier in kept])
        np.testing.assert_array_equal(np.sort(read(buffers.k, span)), held)
        assert not read(buffers.k, (0, lay.memory)).any()  # memory is left alone


def test_ranges_while_the_ring_fills_and_after():
    lay = layout(RelicConfig.tiny())

    def at(blocks):
        return cache.memory_range(lay, jnp.asarray(blocks)).tolist()

    assert at(0) == [24, 24]
    assert at(1) == [24, 24 + 34]
    assert at(18) == [24, lay.memory]  # full: the picture is in its ring slot still
    assert at(19) == at(1000) == [0, lay.memory]  # its own place now
    assert cache.window_range(lay, jnp.asarray(0)).tolist() == [lay.memory, lay.memory]
    assert cache.window_range(lay, jnp.asarray(9)).tolist() == [lay.memory, lay.size]


def test_pooled_tokens_wait_until_their_block_leaves_the_window():
    cfg = config(compress="kv")
    lay = layout(cfg)
    buffers = cache.init(cfg, lay, BATCH)
    for number in range(4):
        keys = spread(100 * number + np.arange(lay.coarse))
        buffers = cache.write_pending(buffers, lay, jnp.int32(number), keys, -keys)
    for number in (2, 3):
        k, v = cache.read_pending(buffers, lay, jnp.int32(number))
        np.testing.assert_array_equal(read(k), 100 * number + np.arange(lay.coarse))
        np.testing.assert_array_equal(read(v), -read(k))


def test_nothing_enters_memory_before_a_block_leaves_the_window():
    cfg = config()
    lay = layout(cfg)
    before = cache.init(cfg, lay, BATCH)
    coarse = cache.coarse_tokens(cfg, lay, jnp.int32(0))
    ones = spread(np.ones(lay.coarse))
    after = cache.write_memory(before, lay, jnp.int32(0), coarse, ones, ones, when=jnp.array(False))
    assert not after.k.any() and not after.v.any()


def test_coarse_tokens_follow_the_schedule_block_by_block():
    cfg = config()
    lay = layout(cfg)
    tables = [cache.coarse_tokens(cfg, lay, jnp.int32(block)) for block in range(4)]
    # Blocks of two latents pooled by 1 and 4, by 2 and 1, by 4 and 2; then again.
    assert [int(table.count) for table in tables] == [24 + 2, 6 + 24, 2 + 6, 24 + 2]
    assert tables[1].latent.tolist() == [0] * 6 + [1] * 24
    # RoPE's first frequency is 1, so its angles are the tokens' rows and columns: those of the grid, then two cells of
    # 4 x 4, of which the second is cut off at the grid's last column.
    places = [*itertools.product(range(4), range(6)), (1.5, 1.5), (1.5, 5)]
    cos, sin = (np.asarray(x)[:26].reshape(26, 2, -1)[:, :, 0] for x in tables[0].spatial)
    np.testing.assert_allclose(cos, np.cos(places), atol=1e-6)
    np.testing.assert_allclose(sin, np.sin(places), atol=1e-6)


def test_only_what_is_needed_is_allocated():
    sizes = {}
    for name, memory in {
        "relic": {},
        "kv": {"compress": "kv"},
        "full": {"mode": "full"},
        "none": {"horizon": 6},
    }.items():
        cfg = config(dtype="bfloat16", **memory)
        buffers = cache.init(cfg, layout(cfg), batch=3)
        assert buffers.k.shape == buffers.v.shape == (LAYERS, 3, layout(cfg).size, HEADS, WIDTH)
        assert buffers.k.dtype == jnp.bfloat16 and not buffers.k.any()
        assert (buffers.pending_k is not None) == (buffers.pending_v is not None) == (name == "kv")
        sizes[name] = buffers.k.shape[2]
    window = 2 * 2 * 24
    assert sizes == {"relic": 24 + 2 * (24 + 2 + 6) + window, "kv": 24 + 2 * (24 + 2 + 6) + window,
                     "full": 24 + 6 * 24 + window, "none": window}  # fmt: skip


def test_an_fp8_cache_stores_what_is_too_large_as_its_largest():
    cfg = config(dtype="float8_e4m3fn")
    lay = layout(cfg)
    values = spread(np.full(lay.tokens_per_block, 1000.0)).at[..., 0].set(-1000.0)
    buffers = cache.write_window(cache.init(cfg, lay, BATCH), lay, jnp.int32(0), values, values / 1000)
    k, v = cache.read_window(buffers, lay, jnp.int32(0))
    assert (k[..., 1:] == 448).all() and (k[..., 0] == -448).all() and (v[..., 0] == -1).all()
