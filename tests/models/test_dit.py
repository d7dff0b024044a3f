"""The transformer against diffusers' WanTransformer3DModel, and RELIC's conditioning at initialisation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.config import DiTConfig, RelicConfig
from relic_jax.models import module
from relic_jax.models.dit import DiT, patchify, unpatchify

CFG = DiTConfig(dim=96, ffn_dim=200, heads=2, layers=2, text_len=16, text_dim=32, cond_dim=24, freq_dim=64)


def _from_diffusers(state: dict[str, np.ndarray], params: module.Params, cfg: DiTConfig) -> module.Params:
    """Our parameters from a diffusers state dict; every source key must be used and every leaf but RELIC's filled."""
    used = set()

    def take(key: str) -> np.ndarray:
        used.add(key)
        return state[key]

    def linear(key: str) -> dict:
        return {"kernel": take(f"{key}.weight").T, "bias": take(f"{key}.bias")}

    def mlp(first: str, second: str) -> dict:
        return {"fc1": linear(first), "fc2": linear(second)}

    def qkv(key: str) -> dict:
        return {
            **{n: linear(f"{key}.to_{n}") for n in "qkv"},
            "o": linear(f"{key}.to_out.0"),
            **{f"norm_{n}": {"scale": take(f"{key}.norm_{n}.weight")} for n in "qk"},
        }

    def block(i: int) -> dict:
        b = f"blocks.{i}"
        return {
            "modulation": take(f"{b}.scale_shift_table")[0],
            "self_attention": qkv(f"{b}.attn1"),
            "cross_attention": qkv(f"{b}.attn2"),
            "norm": {"scale": take(f"{b}.norm2.weight"), "bias": take(f"{b}.norm2.bias")},
            "ffn": mlp(f"{b}.ffn.net.0.proj", f"{b}.ffn.net.2"),
        }

    blocks = jax.tree.map(lambda *x: np.stack(x), *[block(i) for i in range(cfg.layers)])
    blocks |= {name: params["blocks"][name] for name in ("action", "pose")}
    patch = take("patch_embedding.weight").transpose(2, 3, 4, 1, 0).reshape(-1, cfg.dim)
    embedder = "condition_embedder"
    converted = {
        "patch_embedding": {"kernel": patch, "bias": take("patch_embedding.bias")},
        "time_embedding": mlp(f"{embedder}.time_embedder.linear_1", f"{embedder}.time_embedder.linear_2"),
        "time_projection": linear(f"{embedder}.time_proj"),
        "text_embedding": mlp(f"{embedder}.text_embedder.linear_1", f"{embedder}.text_embedder.linear_2"),
        "conditioner": params["conditioner"],
        "blocks": blocks,
        "head_modulation": take("scale_shift_table")[0],
        "head": linear("proj_out"),
    }
    assert used == set(state)
    assert jax.tree.map(jnp.shape, converted) == jax.tree.map(jnp.shape, params)
    return jax.tree.map(jnp.asarray, converted)


@pytest.fixture(scope="module")
def pair():
    torch = pytest.importorskip("torch")
    from diffusers import WanTransformer3DModel

    torch.manual_seed(0)
    peer = WanTransformer3DModel(
        num_attention_heads=CFG.heads,
        attention_head_dim=CFG.head_dim,
        text_dim=CFG.text_dim,
        freq_dim=CFG.freq_dim,
        ffn_dim=CFG.ffn_dim,
        num_layers=CFG.layers,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=64,
    ).eval()
    for parameter in peer.parameters():  # norms and biases too, so that no leaf's place is left untested
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 0.5, 0.3)
    state = {k: v.detach().numpy() for k, v in peer.state_dict().items()}
    return peer, _from_diffusers(state, module.init(DiT, CFG, jax.random.key(0)), CFG)


def _inputs(length=3, height=6, width=8, seed=0):
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    return dict(
        latents=normal(2, length, height, width, 16),
        t=jnp.asarray(rng.uniform(0, 1000, (2, length)), jnp.float32),
        text=normal(2, CFG.text_len, CFG.text_dim),
        actions=normal(2, length, 52),
        poses=normal(2, length, 48),
    )


def test_whole_model_matches_diffusers_with_a_timestep_per_latent(pair):
    import torch

    peer, params = pair
    x = _inputs()
    ours = module.bind(DiT, CFG, params).video(**x)
    with torch.no_grad():
        theirs = peer(
            torch.tensor(np.asarray(x["latents"])).permute(0, 4, 1, 2, 3),
            torch.tensor(np.repeat(x["t"], 12, axis=1)),  # a timestep per token is the form diffusers takes
            torch.tensor(np.asarray(x["text"])),
        ).sample.permute(0, 2, 3, 4, 1)
    assert np.abs(np.asarray(ours)).max() > 0.5
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4, rtol=0)


def test_one_block_matches_diffusers(pair):
    import torch

    from relic_jax.models import rope
    from relic_jax.models.dit import grid_angles
    from relic_jax.ops.attention import attention

    peer, params = pair
    rng = np.random.default_rng(1)
    x, text = rng.standard_normal((2, 24, CFG.dim)), rng.standard_normal((2, 16, CFG.dim))
    modulation = rng.standard_normal((2, 6, CFG.dim))
    x, text, modulation = (a.astype(np.float32) for a in (x, text, modulation))
    angles = grid_angles(CFG, jnp.arange(2), 3, 4)
    first = jax.tree.map(lambda a: a[0], module.bind(DiT, CFG, params).blocks)
    zero = jnp.zeros((2, 2, CFG.cond_dim))
    ours, _ = first(
        jnp.asarray(x),
        jnp.asarray(np.repeat(modulation[:, None], 2, 1)),
        jnp.asarray(text),
        zero,
        zero,
        lambda a: jnp.repeat(a, 12, axis=1),
        lambda q, k, v, _: (attention(rope.rotate(q, angles), rope.rotate(k, angles), v)[0], None),
        None,
    )
    with torch.no_grad():
        rotary = peer.rope(torch.zeros(2, 16, 2, 6, 8))
        theirs = peer.blocks[0](torch.tensor(x), torch.tensor(text), torch.tensor(modulation), rotary)
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4, rtol=0)


def test_conditioning_changes_no_bit_at_initialisation():
    params = module.init(DiT, CFG, jax.random.key(1))
    model = module.bind(DiT, CFG, params)
    x = _inputs()
    plain = model.video(**x | {"actions": jnp.zeros_like(x["actions"]), "poses": jnp.zeros_like(x["poses"])})
    assert (model.video(**x) == plain).all()


def test_conditioning_enters_by_its_door_and_can_be_withheld():
    params = module.init(DiT, CFG, jax.random.key(1))
    for name in ("action", "pose"):
        kernel = params["blocks"][name]["proj"]["kernel"]
        params["blocks"][name]["proj"]["kernel"] = jax.random.normal(jax.random.key(2), kernel.shape)
    model = module.bind(DiT, CFG, params)
    x = _inputs()
    whole = model.video(**x)
    other_pose = x | {"poses": x["poses"] + 1}
    other_action = x | {"actions": x["actions"] + 1}
    assert jnp.abs(model.video(**other_pose) - whole).max() > 1e-3
    assert jnp.abs(model.video(**other_action) - whole).max() > 1e-3
    withheld = jnp.zeros((2,))
    assert (model.video(**x, pose_weight=withheld) == model.video(**other_pose, pose_weight=withheld)).all()


def test_activation_checkpointing_changes_no_gradient():
    params = module.init(DiT, CFG, jax.random.key(1))
    x = _inputs()

    def loss(p, checkpoint):
        return (module.bind(DiT, CFG, p).video(**x, checkpoint=checkpoint) ** 2).mean()

    plain, checked = (jax.grad(loss)(params, c) for c in (False, True))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), plain, checked)


def test_patchify_and_back():
    x = _inputs()["latents"]
    tokens = patchify(x, 2)
    assert tokens.shape == (2, 3 * 3 * 4, 64)
    assert (unpatchify(tokens, 2, 3, 3, 4) == x).all()


def test_full_size_models_are_described_without_memory():
    def count(cfg):
        leaves = jax.tree.leaves(module.abstract(DiT, cfg))
        return sum(np.prod(leaf.shape) for leaf in leaves)

    # Wan's published transformers without RELIC's additions: 14.29 and 1.42 billion parameters.
    plain = {
        name: dataclasses.replace(getattr(RelicConfig, name)().dit, cond_dim=1) for name in ("wan_14b", "wan_1_3b")
    }
    assert abs(count(plain["wan_14b"]) / 14.288e9 - 1) < 2e-3
    assert abs(count(plain["wan_1_3b"]) / 1.4189e9 - 1) < 2e-3
    axes = module.logical_axes(DiT, RelicConfig.wan_14b().dit)
    assert axes["blocks"]["ffn"]["fc1"]["kernel"] == ("layers", "embed", "mlp")
