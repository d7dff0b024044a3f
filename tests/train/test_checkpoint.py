import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from relic_jax.config import ConfigError
from relic_jax.errors import InputError
from relic_jax.models import weights
from relic_jax.train import checkpoint
from tests.train.toy import config


def tree(value: float) -> dict:
    one = jnp.float32(value)
    return {"block": {"w": jnp.full((4, 3), one), "b": jnp.full(3, one)}, "scale": one}


def abstract(params: dict) -> dict:
    return jax.eval_shape(lambda: params)


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    saver = checkpoint.Checkpoints(tmp_path, config(), keep=2)
    for step in (1, 2, 3):
        trees = {"params": tree(step), "ema": tree(-step), "opt_state": (tree(0), jnp.int32(step))}
        saver.save(step, trees, {"i": step})
    saver.close()
    return tmp_path


def test_restores_the_newest_and_keeps_two(workdir):
    saver = checkpoint.Checkpoints(workdir, config(), keep=2)
    assert saver.latest == 3
    expected = abstract({"params": tree(0), "ema": tree(0), "opt_state": (tree(0), jnp.int32(0))})
    trees, data = saver.restore(expected)
    saver.close()
    assert data == {"i": 3}
    assert isinstance(trees["opt_state"], tuple) and trees["opt_state"][1] == 3
    np.testing.assert_array_equal(trees["params"]["block"]["w"], np.full((4, 3), 3))
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["2", "3"]


def test_names_the_first_differing_field(workdir):
    model = config().model
    other = config(model=dataclasses.replace(model, dit=dataclasses.replace(model.dit, layers=7)), steps=99)
    with pytest.raises(ConfigError, match=r"holds a run with config\.model\.dit\.layers=6, this one has .*=7; choose"):
        checkpoint.Checkpoints(workdir, other, keep=2)


def test_config_without_checkpoint_may_change(tmp_path):
    checkpoint.Checkpoints(tmp_path, config(steps=50), keep=2).close()
    checkpoint.Checkpoints(tmp_path, config(steps=60), keep=2).close()


@pytest.mark.parametrize(("which", "value"), [("ema", -3.0), ("params", 3.0)])
def test_load_params_from_a_workdir(workdir, which, value):
    params = checkpoint.load_params(str(workdir), abstract(tree(0)), which)
    assert jax.tree.structure(params) == jax.tree.structure(tree(0))
    np.testing.assert_array_equal(params["block"]["w"], np.full((4, 3), value))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_load_params_from_safetensors(tmp_path, dtype):
    path = str(tmp_path / "model.safetensors")
    weights.save_safetensors(path, tree(0.3), {"format": "test"}, dtype)
    assert safetensors.numpy.load_file(path)["block.w"].dtype == (
        np.float32 if dtype == jnp.float32 else ml_dtypes.bfloat16
    )
    params = checkpoint.load_params(path, abstract(tree(0)))
    assert params["block"]["w"].dtype == jnp.float32
    np.testing.assert_allclose(params["block"]["w"], np.float32(0.3), rtol=0 if dtype == jnp.float32 else 2**-8)


@pytest.mark.parametrize("kind", ["workdir", "safetensors"])
def test_names_the_first_leaf_that_does_not_fit(workdir, kind):
    path = str(workdir)
    if kind == "safetensors":
        path = str(workdir / "model.safetensors")
        weights.save_safetensors(path, tree(1))
    expected = abstract(tree(0) | {"block": {"w": jnp.zeros((4, 5)), "b": jnp.zeros(3)}})
    with pytest.raises(InputError, match=r"block\.w has shape \(4, 3\), expected shape \(4, 5\)"):
        checkpoint.load_params(path, expected)
    with pytest.raises(InputError, match=r"extra is missing, expected shape \(2,\)"):
        checkpoint.load_params(path, abstract(tree(0) | {"extra": jnp.zeros(2)}))
    with pytest.raises(InputError, match="scale"):
        checkpoint.load_params(path, abstract({"block": tree(0)["block"]}))


def test_says_where_there_are_no_weights(tmp_path):
    with pytest.raises(InputError, match="holds no weights; expected a training run's workdir"):
        checkpoint.load_params(str(tmp_path), abstract(tree(0)))
    with pytest.raises(InputError, match="does not exist"):
        checkpoint.load_params(str(tmp_path / "no.safetensors"), abstract(tree(0)))
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match="no complete checkpoint"):
        checkpoint.load_params(str(tmp_path), abstract(tree(0)))


def test_read_gives_step_weights_and_configuration(workdir):
    step, params, values = checkpoint.read(str(workdir))
    assert step == 3 and values["stage"] == "vae"
    np.testing.assert_array_equal(params["scale"], -3)
