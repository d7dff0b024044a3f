"""The transformer against diffusers' WanTransformer3DModel, and RELIC's conditioning at initialisation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.config import DiTConfig, RelicConfig
from relic_jax.models import module
from relic_jax.models.attention import BidirectionalAttention
from relic_jax.models.conditioning import Conditions
from relic_jax.models.dit import DiT, patchify, unpatchify

pytestmark = pytest.mark.usefixtures("compile_once")

CFG = DiTConfig(dim=96, ffn_dim=200, heads=2, layers=2, text_len=16, text_dim=32, cond_dim=24, freq_dim=64)


@pytest.fixture(scope="module")
def pair():
    torch = pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    from tests.weights_convert.peers import params_of, torch_dit

    torch.manual_seed(0)
    peer = torch_dit(CFG)
    for parameter in peer.parameters():  # norms and biases too, so that no leaf's place is left untested
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 0.5, 0.3)
    return peer, params_of("wan-t2v-1.3b", CFG, peer.state_dict())


def _inputs(length=3, height=6, width=8, seed=0):
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    latents, t = normal(2, length, height, width, 16), jnp.asarray(rng.uniform(0, 1000, (2, length)), jnp.float32)
    text, actions, poses = normal(2, CFG.text_len, CFG.text_dim), normal(2, length, 52), normal(2, length, 48)
    return dict(latents=latents, t=t, conditions=Conditions.of(text, actions, poses))


def test_whole_model_matches_diffusers_with_a_timestep_per_latent(pair):
    import torch

    peer, params = pair
    x = _inputs()
    ours = module.bind(DiT, CFG, params).video(**x)
    with torch.no_grad():
        theirs = peer(
            torch.tensor(np.asarray(x["latents"])).permute(0, 4, 1, 2, 3),
            torch.tensor(np.repeat(x["t"], 12, axis=1)),  # a timestep per token is the form diffusers takes
            torch.tensor(np.asarray(x["conditions"].text)),
        ).sample.permute(0, 2, 3, 4, 1)
    assert np.abs(np.asarray(ours)).max() > 0.5
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4, rtol=0)


def test_one_block_matches_diffusers(pair):
    import torch

    from relic_jax.models.dit import grid_angles

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
        None,
        zero,
        zero,
        lambda a: jnp.repeat(a, 12, axis=1),
        BidirectionalAttention(angles),
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
    plain = model.video(
        **x | {"conditions": with_added(x, actions=-x["conditions"].actions, poses=-x["conditions"].poses)}
    )
    assert (model.video(**x) == plain).all()


def with_added(x, **features):
    """The inputs' conditions with something added to some of them."""
    given = x["conditions"]
    return dataclasses.replace(given, **{name: getattr(given, name) + more for name, more in features.items()})


def test_conditioning_matters_once_it_is_learnt_and_poses_can_be_withheld():
    params = module.init(DiT, CFG, jax.random.key(1))
    for name in ("action", "pose"):
        kernel = params["blocks"][name]["proj"]["kernel"]
        params["blocks"][name]["proj"]["kernel"] = jax.random.normal(jax.random.key(2), kernel.shape)
    model = module.bind(DiT, CFG, params)
    x = _inputs()

    def velocity(given):
        return model.video(x["latents"], x["t"], given)

    whole, other_pose = velocity(x["conditions"]), with_added(x, poses=1)
    assert jnp.abs(velocity(other_pose) - whole).max() > 1e-3
    assert jnp.abs(velocity(with_added(x, actions=1)) - whole).max() > 1e-3
    withheld = [dataclasses.replace(given, pose_weight=jnp.zeros((2,))) for given in (x["conditions"], other_pose)]
    assert (velocity(withheld[0]) == velocity(withheld[1])).all()


def test_activation_checkpointing_changes_no_gradient():
    params = module.init(DiT, CFG, jax.random.key(1))
    x = _inputs()

    def loss(p, checkpoint):
        return (module.bind(DiT, CFG, p).video(**x, checkpoint=checkpoint) ** 2).mean()

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    plain, checked = (gradient(params, checkpoint) for checkpoint in (False, True))
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
