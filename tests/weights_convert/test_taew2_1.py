"""taew2_1 at full size: the published names, and from torch's files here and back by the command line."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

from relic_jax.models import tiny_vae
from relic_jax.models.module import abstract
from weights_convert import store
from weights_convert.table import expand
from weights_convert.tables import MODELS
from weights_convert.to_relic import WEIGHTS, to_relic
from weights_convert.to_torch import to_torch

torch = pytest.importorskip("torch")

from tests.taew2_1 import Reference, reference  # noqa: E402 (it is of torch)

ROOT = Path(__file__).parents[2]
MODEL = MODELS["taew2_1"]
TOLERANCE = 1e-4


def published():
    """The names in the author's file."""
    memory = [f"conv.{i}.{kind}" for i in (0, 2, 4) for kind in ("weight", "bias")]
    ends = {"encoder": (0, 17), "decoder": (1, 22)}
    names = [f"{half}.{i}.{kind}" for half in ends for i in ends[half] for kind in ("weight", "bias")]
    names += [f"encoder.{i}.conv.weight" for i in (2, 7, 12)] + [f"encoder.{i}.weight" for i in (3, 8, 13)]
    names += [f"encoder.{i}.{layer}" for i in (4, 5, 6, 9, 10, 11, 14, 15, 16) for layer in memory]
    names += [f"decoder.{i}.conv.weight" for i in (7, 13, 19)] + [f"decoder.{i}.weight" for i in (8, 14, 20)]
    names += [f"decoder.{i}.{layer}" for i in (3, 4, 5, 9, 10, 11, 15, 16, 17) for layer in memory]
    return names


@pytest.mark.parametrize("layout", list(MODEL.layouts))
def test_the_table_has_the_published_names_and_shapes(layout):
    tensors = expand(MODEL.layouts[layout].rows(MODEL.config), abstract(MODEL.module, MODEL.config))
    shapes = {name: tuple(value.shape) for name, value in Reference().state_dict().items()}
    assert {tensor.source: tensor.shape for tensor in tensors} == shapes
    assert sorted(shapes) == sorted(published())


def command(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "weights_convert", *arguments, "--model", "taew2_1"],
        cwd=ROOT, env={**os.environ, "JAX_PLATFORMS": "cpu"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_there_and_back_by_the_command_line(tmp_path):
    model = reference()
    torch.save(model.state_dict(), tmp_path / "taew2_1.pth")
    command("to-relic", "--src", str(tmp_path), "--dst", str(tmp_path / "ours"), "--verify")

    params = store.load((tmp_path / "ours" / WEIGHTS).absolute(), abstract(MODEL.module, MODEL.config))
    latents = np.random.default_rng(0).normal(scale=2, size=(1, 2, 2, 3, 16)).astype(np.float32)
    theirs = model.run(model.decoder, latents)
    ours = jax.jit(tiny_vae.decode_video, static_argnums=1)(params, MODEL.config, latents)
    np.testing.assert_allclose(ours, 2 * np.clip(theirs, 0, 1)[:, 3:] - 1, atol=TOLERANCE, rtol=0)

    command("to-torch", "--src", str(tmp_path / "ours"), "--dst", str(tmp_path / "theirs"))
    back = Reference().eval()
    back.load_state_dict(torch.load(tmp_path / "theirs" / "taew2_1.pth", weights_only=True), strict=True)
    np.testing.assert_array_equal(back.run(back.decoder, latents), theirs)


def test_half_precision_comes_back_bit_for_bit(tmp_path):
    """Published files have two bytes a number; float32 holds float16 exactly."""
    state = {name: value.numpy().astype(np.float16) for name, value in reference().state_dict().items()}
    safetensors.numpy.save_file(state, tmp_path / "taew2_1.safetensors")
    done = to_relic("taew2_1", tmp_path, tmp_path / "ours", model=MODEL, verify=True)
    assert (done.layout, done.converted, done.initialised, done.ignored) == ("safetensors", len(state), 0, {})
    to_torch(tmp_path / "ours", tmp_path / "theirs", model=MODEL)
    back = safetensors.numpy.load_file(tmp_path / "theirs" / "taew2_1.safetensors")
    assert back.keys() == state.keys()
    assert all(back[name].dtype == np.float16 and back[name].tobytes() == state[name].tobytes() for name in state)
