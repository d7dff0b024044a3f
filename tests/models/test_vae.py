"""The VAE against diffusers' AutoencoderKLWan with random weights, module by module and whole."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.config import VAEConfig
from relic_jax.errors import InputError
from relic_jax.models import vae, vae_layers
from relic_jax.models.module import bind, init

pytestmark = pytest.mark.usefixtures("compile_once")

torch = pytest.importorskip("torch")
wan = pytest.importorskip("diffusers.models.autoencoders.autoencoder_kl_wan")

from tests.weights_convert.peers import params_of, torch_vae  # noqa: E402 (it imports torch)

WAN_LIKE = VAEConfig(base_dim=8, res_blocks=1)
TINY_LIKE = VAEConfig(base_dim=8, multipliers=(1, 2, 4), res_blocks=1, temporal_down=(True, True), patch_size=2)
CONFIGS = pytest.mark.parametrize("cfg", [WAN_LIKE, TINY_LIKE], ids=["wan_like", "tiny_like"])
TOLERANCE = 1e-4


@functools.cache
def fresh(cfg):
    """Made once: it takes longer than the rest of a test."""
    return init(vae.VAE, cfg, jax.random.key(0))


def oracle(cfg):
    torch.manual_seed(0)
    model = torch_vae(cfg)
    randomise(model)
    return model


def randomise(model):
    """Gains and biases too, which are all ones and zeros in a fresh model and would hide a mix-up."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))


def converted(model):
    """A part's state dict in this project's names and layouts; whole models go by the converter's table."""
    tree = {}
    for name, value in model.state_dict().items():
        for theirs, ours in (
            ("resample.1.", "conv."),
            ("upsamplers.0.", "upsampler."),
            ("attentions.0.", "attention."),
            ("weight", "kernel"),
        ):
            name = name.replace(theirs, ours)
        array = value.numpy()
        if name.endswith("gamma"):
            array = array.reshape(-1)
        elif name.endswith("kernel"):
            array = np.moveaxis(array, (0, 1), (-1, -2))
            if "to_qkv" in name or "proj" in name:
                array = array[None]
        *path, leaf = name.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = jnp.asarray(array)
    return tree


def converted_vae(model, cfg):
    statistics = {"latent_mean": jnp.zeros(cfg.latent_channels), "latent_std": jnp.ones(cfg.latent_channels)}
    return params_of("wan-vae", cfg, model.state_dict()) | statistics


def to_torch(x):
    return torch.from_numpy(np.moveaxis(np.array(x), -1, 1))


def from_torch(x):
    return np.moveaxis(x.detach().numpy(), 1, -1)


def video(cfg, latents, seed=0, batch=2):
    shape = (batch, 4 * latents - 3, 2 * cfg.spatial_stride, 3 * cfg.spatial_stride, 3)
    return jax.random.uniform(jax.random.key(seed), shape, minval=-1, maxval=1)


def unit(x):
    """Outputs to be compared are of unit scale, so that an absolute tolerance means something."""
    assert 0.1 < np.std(x) < 10
    return x


class Built:
    """A module declared the way `module.bind` expects, from a torch one's weights."""

    def __init__(self, make, theirs):
        class Module(vae_layers.nnx.Module):
            def __init__(self, cfg, *, rngs):
                self.inner = make(rngs)

            def __call__(self, *args):
                return self.inner(*args)

        randomise(theirs)
        self.module = bind(Module, None, {"inner": converted(theirs)})

    def __call__(self, *args):
        return jax.jit(lambda *a: self.module(*a))(*args)


@pytest.mark.parametrize(("features_in", "features_out"), [(8, 8), (8, 12)])
def test_residual_block(features_in, features_out):
    theirs = wan.WanResidualBlock(features_in, features_out).eval()
    ours = Built(lambda rngs: vae_layers.ResidualBlock(features_in, features_out, rngs=rngs), theirs)
    x = jax.random.normal(jax.random.key(0), (2, 5, 4, 6, features_in))
    y, _ = ours(x, None, None)
    np.testing.assert_allclose(unit(y), from_torch(theirs(to_torch(x))), atol=TOLERANCE, rtol=0)


def test_attention_and_norm():
    theirs = wan.WanAttentionBlock(8).eval()
    ours = Built(lambda rngs: vae_layers.FrameAttention(8, rngs=rngs), theirs)
    x = jax.random.normal(jax.random.key(0), (2, 5, 4, 6, 8))
    np.testing.assert_allclose(unit(ours(x)), from_torch(theirs(to_torch(x))), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("temporal", [False, True])
@pytest.mark.parametrize("direction", ["down", "up"])
def test_resample(direction, temporal):
    theirs = wan.WanResample(8, f"{direction}sample{3 if temporal else 2}d").eval()
    layer = vae_layers.Downsample if direction == "down" else vae_layers.Upsample
    ours = Built(lambda rngs: layer(8, temporal=temporal, rngs=rngs), theirs)
    x = jax.random.normal(jax.random.key(0), (2, 5, 4, 6, 8))
    cache = [None]  # the first frame alone, then pairs: what the real encoder and decoder do
    pieces = [theirs(to_torch(x[:, a:b]), cache, [0]) for a, b in ((0, 1), (1, 3), (3, 5))]
    y, _ = ours(x, None, None)
    np.testing.assert_allclose(unit(y), from_torch(torch.cat(pieces, 2)), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_fold_is_wan_22s(patch):
    x = jax.random.normal(jax.random.key(0), (2, 3, 8, 12, 3))
    folded = vae.fold(x, patch)
    np.testing.assert_array_equal(folded, from_torch(wan.patchify(to_torch(x), patch)))
    np.testing.assert_array_equal(vae.unfold(folded, patch), x)


@CONFIGS
@pytest.mark.parametrize("latents", [1, 3])
def test_encoder_and_decoder(cfg, latents):
    model = oracle(cfg)
    params, frames = converted_vae(model, cfg), video(cfg, latents)
    with torch.no_grad():
        moments = from_torch(model.encode(to_torch(frames)).latent_dist.parameters)
    mean, logvar = jax.jit(vae.encode_moments, static_argnums=1)(params, cfg, frames)
    np.testing.assert_allclose(unit(np.concatenate([mean, logvar], -1)), moments, atol=TOLERANCE, rtol=0)

    # Scaled to stay inside [-1, 1], where the clip would hide a difference.
    sample = jax.random.normal(jax.random.key(1), mean.shape)
    with torch.no_grad():
        theirs = model.decode(to_torch(sample), return_dict=False)[0]
    ours = jax.jit(vae.decode_sample, static_argnums=1)(params, cfg, sample)
    np.testing.assert_allclose(unit(jnp.clip(ours, -1, 1)), from_torch(theirs), atol=TOLERANCE, rtol=0)
    assert np.mean(np.abs(ours) < 1) > 0.5


def test_statistics_normalise_the_latents():
    params = fresh(TINY_LIKE)
    mean, std = jnp.arange(16.0) / 8, 1 + jnp.arange(16.0) / 16
    frames = video(TINY_LIKE, 2)
    encode, decode = (jax.jit(f, static_argnums=1) for f in (vae.encode_video, vae.decode_video))
    plain = encode(params, TINY_LIKE, frames)
    scaled = params | {"latent_mean": mean, "latent_std": std}
    latents = encode(scaled, TINY_LIKE, frames)
    np.testing.assert_allclose(latents, (plain - mean) / std, atol=1e-6)
    np.testing.assert_allclose(decode(scaled, TINY_LIKE, latents), decode(params, TINY_LIKE, plain), atol=1e-5)


def test_bf16_decodes_in_bf16_and_encodes_to_float32():
    cfg = TINY_LIKE
    params, frames = fresh(cfg), video(cfg, 2)
    encode, decode = (jax.jit(f, static_argnums=1) for f in (vae.encode_video, vae.decode_video))
    latents = encode(params, cfg, frames)
    half = decode(params, cfg, latents.astype(jnp.bfloat16))
    assert latents.dtype == jnp.float32 and half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), decode(params, cfg, latents), atol=0.05)
    coarse = jax.eval_shape(lambda x: vae.encode_video(params, cfg, x), frames.astype(jnp.bfloat16))
    assert coarse.dtype == jnp.float32


def test_bad_shapes_are_named():
    params, frames = fresh(TINY_LIKE), video(TINY_LIKE, 2)
    with pytest.raises(InputError, match="4 frames, expected 1 and a multiple of 4"):
        vae.encode_video(params, TINY_LIKE, frames[:, :4])
    with pytest.raises(InputError, match="15 x 24 pixels, expected multiples of the VAE's stride 8"):
        vae.encode_video(params, TINY_LIKE, frames[:, :, :15])
