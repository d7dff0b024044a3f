"""Sources of other shapes than a plain folder: training checkpoints, single files; and the network."""

import dataclasses
import json

import numpy as np
import pytest
import safetensors.numpy

from relic_jax.errors import InputError
from weights_convert import download
from weights_convert.source import Source
from weights_convert.tables import MODELS
from weights_convert.to_relic import open_source, to_relic

torch = pytest.importorskip("torch")

from tests.weights_convert import peers, sources  # noqa: E402 (peers imports torch)

DESCENDANTS = {
    "Self-Forcing": lambda state: {
        "generator": {f"model.{k}": torch.zeros_like(v) for k, v in state.items()},
        "generator_ema": {f"model._fsdp_wrapped_module.{k}": v for k, v in state.items()},
        "critic": {},
        "step": 600,
    },
    "CausVid": lambda state: {"generator": {f"model.{k}": v for k, v in state.items()}},
    "wrapped blocks": lambda state: {
        "generator_ema": {
            "model." + k.replace("blocks.1.", "blocks.1._fsdp_wrapped_module._checkpoint_wrapped_module."): v
            for k, v in state.items()
        }
    },
    "plain": lambda state: state,
}


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    folder = sources.write_source(tmp_path_factory.mktemp("source") / "wan")
    return {name: torch.from_numpy(value) for name, value in sources.read_source(folder).items()}


@pytest.mark.parametrize("form", DESCENDANTS)
def test_descendants_of_wan_load_as_students(tmp_path, state, form):
    torch.save(DESCENDANTS[form](state), tmp_path / "model.pt")
    summary = to_relic("m", tmp_path / "model.pt", tmp_path / "dst", model=sources.MODEL, verify=True)
    assert summary.layout == "wan" and summary.converted == len(state)
    leaves = sources.leaves_of(tmp_path / "dst")
    assert np.array_equal(leaves["blocks.self_attention.v.kernel"][2], state["blocks.2.self_attn.v.weight"].T)


def test_a_single_file_of_prefixed_names(tmp_path, state):
    arrays = {f"model.diffusion_model.{name}": value.numpy() for name, value in state.items()}
    safetensors.numpy.save_file(arrays, tmp_path / "any name.safetensors")
    layout, source, plan = open_source("m", tmp_path / "any name.safetensors", sources.MODEL)
    assert layout == "wan" and source.stored.keys() == state.keys() and len(plan.tensors) == len(state)


def test_two_tensors_of_one_name_are_refused(tmp_path, state):
    doubled = {"x": state["head.head.bias"], "_orig_mod.x": state["head.head.bias"]}
    torch.save(doubled, tmp_path / "model.pt")
    with pytest.raises(InputError, match="two tensors have the same name"):
        Source(tmp_path, [tmp_path / "model.pt"])


def test_a_pth_in_bfloat16(tmp_path, state):
    torch.save({name: value.bfloat16() for name, value in state.items()}, tmp_path / "model.pth")
    to_relic("m", tmp_path / "model.pth", tmp_path / "dst", model=sources.MODEL, dtype="bfloat16", verify=True)
    leaves = sources.leaves_of(tmp_path / "dst")
    expected = state["blocks.0.ffn.2.weight"].bfloat16().float().T
    assert np.array_equal(leaves["blocks.ffn.fc2.kernel"][0], expected)


def test_a_tied_embedding_is_left_out_and_said(tmp_path):
    peer = peers.torch_umt5(peers.TEXT)
    arrays = {name: value.numpy().copy() for name, value in peer.state_dict().items()}
    safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors")
    model = dataclasses.replace(MODELS["umt5-xxl"], config=peers.TEXT)
    summary = to_relic("umt5-xxl", tmp_path, tmp_path / "dst", model=model)
    assert summary.ignored == {"encoder.embed_tokens.weight": "the same tensor as shared.weight"}


def test_a_config_of_another_model_is_refused(tmp_path):
    folder = sources.write_source(tmp_path / "diffusers", layout="diffusers")
    config = sources.MODEL.layouts["diffusers"].config(sources.CFG) | {"_diffusers_version": "0.33"}
    (folder / "config.json").write_text(json.dumps(config))
    assert open_source("m", folder, sources.MODEL)[0] == "diffusers"
    (folder / "config.json").write_text(json.dumps(config | {"num_attention_heads": 4, "patch_size": [1, 1, 4]}))
    with pytest.raises(
        InputError, match="config.json is of another model: num_attention_heads is 4, expected 2; patch"
    ):
        open_source("m", folder, sources.MODEL)
    (folder / "config.json").write_text("[1")
    with pytest.raises(InputError, match="config.json is not readable"):
        open_source("m", folder, sources.MODEL)


PUBLISHED = [("wan-t2v-14b", "wan"), ("wan-t2v-14b", "diffusers"), ("wan-t2v-1.3b", "wan")]
PUBLISHED += [("wan-vae", "diffusers"), ("umt5-xxl", "diffusers")]


@pytest.mark.parametrize(("name", "layout"), PUBLISHED)
def test_files_of_full_size_are_recognised(tmp_path, name, layout):
    file = tmp_path / "weights.safetensors"
    sources.write_hollow(file, name, layout)
    found, source, plan = open_source(name, file, MODELS[name])
    assert found == layout and len(plan.tensors) == len(source.stored) and not plan.ignored
    filled = {(tensor.target, tensor.index) for tensor in [*plan.tensors, *plan.initialised]}
    assert filled == {(tensor.target, tensor.index) for tensor in MODELS[name].table(layout)}


@pytest.mark.parametrize("name", MODELS)
def test_download_asks_for_the_files_that_the_converter_looks_for(tmp_path, monkeypatch, name):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    asked = {}

    def snapshot_download(repository, *, allow_patterns, local_dir):
        asked[repository] = allow_patterns

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    for layout, form in MODELS[name].layouts.items():
        assert download.download(name, tmp_path, model=MODELS[name], layout=layout) == tmp_path
        assert asked[form.repository] == download.patterns(form)
    assert len(asked) == len(MODELS[name].layouts)


def test_without_a_network_it_says_what_to_fetch_by_hand(tmp_path, monkeypatch):
    monkeypatch.setitem(sources.ENVIRONMENT, "HF_HUB_OFFLINE", "1")
    ((code, _, err),) = peers.commands(["download", "--model", "wan-vae", "--dst", tmp_path / "x"])
    assert code == 2 and "Traceback" not in err
    message = err[err.index("error: ") :]
    assert "Wan2.1_VAE.pth from https://huggingface.co/Wan-AI/Wan2.1-T2V-1.3B/tree/main" in message
    assert "python -m weights_convert to-relic --model wan-vae" in message
