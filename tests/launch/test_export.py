"""`launch.export grow`: a VAE with blocks that it lacked computes what it did; what doesn't fit is named."""

import dataclasses
import subprocess
import sys

import jax
import numpy as np
import pytest

from relic_jax.config import RelicConfig
from relic_jax.models import module, vae, weights

PLAIN = dataclasses.replace(RelicConfig.tiny().vae, extra_res_blocks=())
GROWN = dataclasses.replace(PLAIN, extra_res_blocks=(1, 2, 0))
encode, decode = (jax.jit(f, static_argnums=1) for f in (vae.encode_video, vae.decode_video))


def grow(source, out, extra):
    command = [sys.executable, "-m", "launch.export", "grow", f"--vae={source}", f"--out={out}"]
    command.append(f"--config.vae.extra_res_blocks={extra}")
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    rng = np.random.default_rng(0)
    shapes = module.abstract(vae.VAE, PLAIN)
    params = jax.tree.map(lambda x: (rng.standard_normal(x.shape) / max(x.shape[0], 4)).astype(np.float32), shapes)
    path = tmp_path_factory.mktemp("vae") / "trained.safetensors"
    weights.save_safetensors(path, params)
    return path, params


def test_a_grown_vae_computes_what_the_trained_one_did(trained, tmp_path):
    path, params = trained
    ran = grow(path, tmp_path / "grown.safetensors", GROWN.extra_res_blocks)
    assert ran.returncode == 0, ran.stderr
    grown = weights.load_safetensors(tmp_path / "grown.safetensors", module.abstract(vae.VAE, GROWN))
    assert len(grown["encoder"]["extra_blocks"]) == 3
    assert [len(grown["decoder"]["up_blocks"][str(i)]["resnets"]) for i in range(3)] == [2, 4, 3]
    video = jax.random.uniform(jax.random.key(1), (1, 5, 16, 24, 3), minval=-1)
    latents = encode(params, PLAIN, video)
    np.testing.assert_array_equal(encode(grown, GROWN, video), latents)
    np.testing.assert_array_equal(decode(grown, GROWN, latents), decode(params, PLAIN, latents))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ((1, 1), "vae.extra_res_blocks has 2 entries, expected none, or 3: one a level of vae.multipliers"),
        ((1, 1, 0), "nothing.safetensors does not exist"),
    ],
)
def test_what_cannot_grow_is_said_in_one_sentence(tmp_path, extra, message):
    ran = grow(tmp_path / "nothing.safetensors", tmp_path / "grown.safetensors", extra)
    assert ran.returncode == 2 and message in ran.stderr and len(ran.stderr.splitlines()) == 1
    assert not (tmp_path / "grown.safetensors").exists()
