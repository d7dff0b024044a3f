"""A bundle on disk: saved, loaded, and every way it can fail to fit."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.config import DiTConfig, RelicConfig, TextConfig, VAEConfig
from relic_jax.errors import InputError
from relic_jax.models import bundle, tokenizer
from tests.small import random_bundle

CFG = RelicConfig(
    name="smallest",
    video=dataclasses.replace(RelicConfig.tiny().video, height=32, width=48),
    dit=DiTConfig(dim=32, ffn_dim=48, heads=4, layers=2, freq_dim=16, text_len=8, text_dim=16, cond_dim=16),
    vae=VAEConfig(base_dim=8, multipliers=(1, 2), res_blocks=1, temporal_down=(True,), patch_size=2),
    text=TextConfig(vocab=128, dim=16, attention_dim=16, ffn_dim=24, heads=2, layers=1, length=8),
)


def replaced(**parts):
    """CFG with fields of its parts replaced."""
    return dataclasses.replace(
        CFG, **{part: dataclasses.replace(getattr(CFG, part), **fields) for part, fields in parts.items()}
    )


@pytest.fixture(scope="module")
def model():
    return random_bundle(CFG)


@pytest.fixture
def saved(tmp_path, model):
    bundle.save(tmp_path / "model", model, "# A card\n")
    return tmp_path / "model"


def test_round_trip(saved, model):
    names = {p.name for p in saved.iterdir()}
    assert names == {"config.json", "dit.safetensors", "vae.safetensors", "text.safetensors", "tokenizer.json",
                     "README.md"}  # fmt: skip
    assert [p.name for p in saved.parent.iterdir()] == ["model"]
    loaded = bundle.load(saved)
    assert loaded.config == CFG
    assert jax.tree.structure(loaded.params) == jax.tree.structure(model.params)
    jax.tree.map(np.testing.assert_array_equal, loaded.params, model.params)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(loaded.params))
    np.testing.assert_array_equal(loaded.tokenizer(["red room"], 8)[0], model.tokenizer(["red room"], 8)[0])


def test_stored_in_half_precision_and_loaded_as_float32(tmp_path, saved, model):
    bundle.save(tmp_path / "half", model, "", dtype=jnp.float16)
    size = {p: (tmp_path / p / "dit.safetensors").stat().st_size for p in ("half", "model")}
    assert size["half"] < 0.7 * size["model"]
    loaded = bundle.load(tmp_path / "half").params
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded)} == {jnp.dtype("float32")}


def test_a_config_may_choose_how_the_model_is_run(saved):
    cfg = replaced(memory={"mode": "window"}, dit={"yarn_scale": 2.0})
    assert bundle.load(saved, cfg).config == cfg


def test_the_first_leaf_that_does_not_fit_is_named(saved):
    with pytest.raises(InputError, match=r"dit\.safetensors.*ffn.* has shape \(2, .*48.*expected shape \(2, .*64"):
        bundle.load(saved, replaced(dit={"ffn_dim": 64}))
    with pytest.raises(InputError, match=r"text\.safetensors.*embedding has shape \(128, 16\), .*\(200, 16\)"):
        bundle.load(saved, replaced(text={"vocab": 200}))
    with pytest.raises(InputError, match=r"vae\.safetensors.* has shape .*expected shape"):
        bundle.load(saved, replaced(vae={"base_dim": 16}))


def test_architecture_that_shapes_do_not_show_is_named(saved):
    with pytest.raises(InputError, match=r"config\.json doesn't fit the config: dit\.heads is 4, expected 8"):
        bundle.load(saved, replaced(dit={"heads": 8}))


def test_nothing_is_overwritten(saved, model):
    before = (saved / "README.md").read_text()
    with pytest.raises(InputError, match="model exists already"):
        bundle.save(saved, model, "other")
    assert (saved / "README.md").read_text() == before


def test_a_failed_save_leaves_nothing(tmp_path, model):
    broken = dataclasses.replace(model, params={**model.params, "vae": {"x": jnp.zeros(3)}})
    with pytest.raises(InputError, match=r"bundle\.params\['vae'\] doesn't fit"):
        bundle.save(tmp_path / "model", broken, "")
    assert list(tmp_path.iterdir()) == []


def test_missing_and_broken_files_are_named(tmp_path, saved):
    with pytest.raises(InputError, match=r"nowhere.config\.json does not exist; expected a bundle"):
        bundle.load(tmp_path / "nowhere")
    (saved / "vae.safetensors").rename(saved / "x")
    with pytest.raises(InputError, match=r"vae\.safetensors does not exist"):
        bundle.load(saved)
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "colour": 1}))
    with pytest.raises(InputError, match=r"config\.json: config\.colour does not exist"):
        bundle.load(saved)
    (saved / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json is not a readable config"):
        bundle.load(saved)


def test_a_tokenizer_with_more_tokens_than_the_encoder_is_refused(tmp_path, saved):
    big = tokenizer.train([f"{a}{b}" for a in "abcdefgh" for b in "ijklmnopqrstuvwxyz"] * 3, 200)
    big.save(saved / "tokenizer.json")
    with pytest.raises(InputError, match=r"tokenizer\.json has \d+ tokens, expected at most text\.vocab=128"):
        bundle.load(saved)
