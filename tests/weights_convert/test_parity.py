"""Live parity, by the command line: a random PyTorch model in each published layout, converted, run, converted back."""

import copy
import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.models import module, umt5, vae
from relic_jax.models.conditioning import Conditions
from relic_jax.train import checkpoint
from weights_convert.tables import MODELS

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import safetensors.torch  # noqa: E402 (with torch)

from tests.weights_convert import peers  # noqa: E402

CASES = [(name, layout) for name in ("wan-t2v-1.3b", "wan-vae", "umt5-xxl") for layout in ("wan", "diffusers")]
TOLERANCE = 1e-4


@functools.cache
def peer(name, layout):
    torch.manual_seed(0)
    if name == "umt5-xxl":
        model = peers.WanText(peers.TEXT).eval() if layout == "wan" else peers.torch_umt5(peers.TEXT)
        with torch.no_grad():  # transformers starts with features that vanish, torch with ones that explode
            for parameter in model.parameters():
                parameter.copy_(torch.randn_like(parameter) * (0.1 if parameter.ndim == 2 else 1))
        return model
    build = peers.torch_vae if name == "wan-vae" else peers.torch_dit
    return peers.randomise(build(peers.CONFIGS[name]))


def original(name):
    """Original name to diffusers' name."""
    names = peers.wan_vae_names() if name == "wan-vae" else peers.wan_dit_names(peers.DIT.layers)
    return peers.diffusers_names(name, names)


def save_sharded(folder, state, files=3):
    """As Wan publishes its transformer."""
    names, places = sorted(state), {}
    for i in range(files):
        file = f"diffusion_pytorch_model-{i + 1:05d}-of-{files:05d}.safetensors"
        safetensors.torch.save_file({name: state[name].contiguous() for name in names[i::files]}, folder / file)
        places |= dict.fromkeys(names[i::files], file)
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def save(name, layout, folder):
    model = peer(name, layout)
    if layout == "diffusers":  # a pipeline's top folder, the model in its own
        model.save_pretrained(folder / MODELS[name].layouts[layout].folder, max_shard_size="300KB")
        return
    folder.mkdir()
    state = model.state_dict()
    if name == "umt5-xxl":
        torch.save(state, folder / "models_t5_umt5-xxl-enc-bf16.pth")
        return
    state = {ours: state[theirs] for ours, theirs in original(name).items()}
    if name == "wan-vae":
        torch.save(state, folder / "Wan2.1_VAE.pth")
    else:
        save_sharded(folder, state)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """SOURCE-*, RELIC-* and BACK-* of every case."""
    top = tmp_path_factory.mktemp("parity")
    lines = []
    for name, layout in CASES:
        case = f"{name}-{layout}"
        config = top / f"{name}.json"
        config.write_text(json.dumps(dataclasses.asdict(peers.CONFIGS[name])))
        save(name, layout, top / f"source-{case}")
        which = ["--model", name, "--config", config]
        lines.append(["to-relic", *which, "--src", top / f"source-{case}", "--dst", top / f"relic-{case}", "--verify"])
        lines.append(["to-torch", *which, "--src", top / f"relic-{case}", "--dst", top / f"back-{case}"])
    for line, (code, out, err) in zip(lines, peers.commands(*lines), strict=True):
        assert code == 0, (line, err)
        assert "every bit as in the source" in out or line[0] == "to-torch"
    return top


def converted(folder, name, layout):
    expected = module.abstract(MODELS[name].module, peers.CONFIGS[name])
    return checkpoint.load_params(str(folder / f"relic-{name}-{layout}"), expected)


def returned(folder, name, layout):
    """The PyTorch model that came back; `strict` is on."""
    back, cfg = folder / f"back-{name}-{layout}", peers.CONFIGS[name]
    if layout == "diffusers":
        loaded = type(peer(name, layout)).from_pretrained(back)
        model = copy.deepcopy(peer(name, layout))
        # Into memory of torch's own: products over a mapped file's, which is aligned otherwise, round otherwise.
        model.load_state_dict({key: value.clone() for key, value in loaded.state_dict().items()}, strict=True)
        return model
    if name == "umt5-xxl":
        model = peers.WanText(cfg)
        model.load_state_dict(torch.load(back / "models_t5_umt5-xxl-enc-bf16.pth", weights_only=True), strict=True)
        return model
    if name == "wan-vae":
        model, state = peers.torch_vae(cfg), torch.load(back / "Wan2.1_VAE.pth", weights_only=True)
    else:
        model = peers.torch_dit(cfg)
        state = safetensors.torch.load_file(back / "diffusion_pytorch_model.safetensors")
    names = original(name)
    model.load_state_dict({names[key]: value for key, value in state.items()}, strict=True)
    return model


def check(ours, theirs, again):
    theirs = theirs.numpy()
    assert 0.1 < theirs.std() < 10
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE, rtol=0)
    assert np.array_equal(again.numpy(), theirs)


@pytest.mark.parametrize("layout", ["wan", "diffusers"])
@torch.no_grad()
def test_transformer(folder, layout):
    name, cfg = "wan-t2v-1.3b", peers.DIT
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((1, 2, 4, 6, 16)).astype(np.float32)
    text = rng.standard_normal((1, cfg.text_len, cfg.text_dim)).astype(np.float32)
    conditions = jnp.ones((1, 2, 52)), jnp.ones((1, 2, 48))  # which enter by closed doors
    model = module.bind(MODELS[name].module, cfg, converted(folder, name, layout))
    given = Conditions.of(jnp.asarray(text), *conditions)
    ours = model.video(jnp.asarray(latents), jnp.full((1, 2), 500.0), given)
    inputs = torch.tensor(latents).permute(0, 4, 1, 2, 3), torch.tensor([500.0]), torch.tensor(text)
    theirs, again = (
        m(*inputs).sample.permute(0, 2, 3, 4, 1) for m in (peer(name, layout), returned(folder, name, layout))
    )
    check(ours, theirs, again)


@pytest.mark.parametrize("layout", ["wan", "diffusers"])
@torch.no_grad()
def test_vae(folder, layout):
    name, cfg = "wan-vae", peers.VAE
    params = converted(folder, name, layout)
    frames = np.random.default_rng(0).uniform(-1, 1, (1, 5, 16, 16, 3)).astype(np.float32)
    models = peer(name, layout), returned(folder, name, layout)
    moments = jnp.concatenate(jax.jit(vae.encode_moments, static_argnums=1)(params, cfg, jnp.asarray(frames)), -1)
    inputs = torch.tensor(frames).permute(0, 4, 1, 2, 3)
    theirs, again = (m.encode(inputs).latent_dist.parameters.permute(0, 2, 3, 4, 1) for m in models)
    check(moments, theirs, again)
    sample = np.random.default_rng(1).standard_normal((1, 2, 2, 2, 16)).astype(np.float32)
    ours = jnp.clip(jax.jit(vae.decode_sample, static_argnums=1)(params, cfg, jnp.asarray(sample)), -1, 1)
    inputs = torch.tensor(sample).permute(0, 4, 1, 2, 3)
    check(ours, *(m.decode(inputs, return_dict=False)[0].permute(0, 2, 3, 4, 1) for m in models))


@pytest.mark.parametrize("layout", ["wan", "diffusers"])
@torch.no_grad()
def test_text_encoder(folder, layout):
    name, cfg = "umt5-xxl", peers.TEXT
    ids = np.random.default_rng(0).integers(3, cfg.vocab, (2, cfg.length))
    mask = np.arange(cfg.length)[None] < np.array([[cfg.length], [7]])
    ours = umt5.encode(converted(folder, name, layout), cfg, jnp.asarray(ids), jnp.asarray(mask))
    inputs = torch.tensor(ids), torch.tensor(mask)
    theirs, again = (m(*inputs) for m in (peer(name, layout), returned(folder, name, layout)))
    if layout == "diffusers":
        theirs, again = theirs.last_hidden_state, again.last_hidden_state
    check(np.asarray(ours)[mask], theirs[torch.tensor(mask)], again[torch.tensor(mask)])


@pytest.mark.parametrize(("name", "layout"), CASES)
def test_what_came_back_is_what_went_in(folder, name, layout):
    state = peer(name, layout).state_dict()
    again = returned(folder, name, layout).state_dict()
    assert again.keys() == state.keys()
    assert all(torch.equal(again[key], state[key]) for key in state)


@pytest.mark.parametrize(("name", "layout"), CASES)
def test_manifest_says_where_it_came_from(folder, name, layout):
    assert checkpoint.read(str(folder / f"relic-{name}-{layout}"))[0] == 0  # as a training run at step 0
    manifest = json.loads((folder / f"relic-{name}-{layout}" / "manifest.json").read_text())
    assert (manifest["model"], manifest["layout"], manifest["dtype"]) == (name, layout, "float32")
    assert set(manifest["source_dtypes"].values()) == {"float32"}
    assert all(len(file["sha256"]) == 64 and file["bytes"] > 0 for file in manifest["source"])
    assert len(manifest["source"]) == {("wan-t2v-1.3b", "wan"): 3}.get((name, layout), len(manifest["source"]))
    assert bool(manifest["initialised"]) == (name != "umt5-xxl")
