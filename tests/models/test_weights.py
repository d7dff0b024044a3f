"""Parameters to safetensors files and back; every misfit named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.errors import InputError
from relic_jax.models import weights


@pytest.fixture
def params():
    k = jax.random.split(jax.random.key(0), 3)
    return {
        "embed": jax.random.normal(k[0], (5, 3)),
        "blocks": {"q": {"kernel": jax.random.normal(k[1], (2, 3, 4))}, "scale": jax.random.normal(k[2], ())},
    }


def abstract(params):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)


def test_round_trip_is_exact(tmp_path, params):
    weights.save_safetensors(tmp_path / "a.safetensors", params, metadata={"step": "7"})
    loaded = weights.load_safetensors(tmp_path / "a.safetensors", abstract(params))
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    assert weights.read_metadata(tmp_path / "a.safetensors") == {"step": "7"}
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_non_contiguous_leaves_keep_their_values(tmp_path):
    params = {"w": np.arange(12, dtype=np.float32).reshape(3, 4).T}
    weights.save_safetensors(tmp_path / "a.safetensors", params)
    np.testing.assert_array_equal(weights.load_safetensors(tmp_path / "a.safetensors", params)["w"], params["w"])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_stored_and_widened_on_load(tmp_path, params, dtype):
    full, half = tmp_path / "full.safetensors", tmp_path / "half.safetensors"
    big = {"w": jax.random.normal(jax.random.key(1), (64, 64))}
    weights.save_safetensors(full, big)
    weights.save_safetensors(half, big, dtype=dtype)
    assert half.stat().st_size < 0.6 * full.stat().st_size
    loaded = weights.load_safetensors(half, abstract(big))["w"]
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, np.asarray(big["w"].astype(dtype).astype(jnp.float32)))


def test_wrong_shape_names_the_first_leaf_and_both_shapes(tmp_path, params):
    weights.save_safetensors(tmp_path / "a.safetensors", params)
    expected = abstract(params)
    expected["blocks"]["q"]["kernel"] = jax.ShapeDtypeStruct((2, 3, 8), jnp.float32)
    with pytest.raises(InputError, match=r"a\.safetensors.*blocks\.q\.kernel has shape \(2, 3, 4\).*\(2, 3, 8\)"):
        weights.load_safetensors(tmp_path / "a.safetensors", expected)
    with pytest.raises(InputError, match=r"here .*blocks\.q\.kernel"):
        weights.check_fits(params, expected, "here")


def test_missing_and_unknown_leaves_are_named(params):
    more = {**params, "extra": jnp.zeros((2,))}
    with pytest.raises(InputError, match=r"extra is missing, expected shape \(2,\)"):
        weights.check_fits(params, more, "here")
    with pytest.raises(InputError, match=r"extra of shape \(2,\) is no parameter"):
        weights.check_fits(more, params, "here")
    weights.check_fits(params, abstract(params), "here")


def test_unreadable_files_are_named(tmp_path, params):
    with pytest.raises(InputError, match=r"none\.safetensors does not exist"):
        weights.load_safetensors(tmp_path / "none.safetensors", params)
    (tmp_path / "bad.safetensors").write_bytes(b"not a header at all")
    with pytest.raises(InputError, match=r"bad\.safetensors is not a readable safetensors file"):
        weights.load_safetensors(tmp_path / "bad.safetensors", params)


def test_failed_write_leaves_the_old_file(tmp_path, params):
    with pytest.raises(InputError, match="can't be written"):
        weights.save_safetensors(tmp_path / "no" / "a.safetensors", params)
