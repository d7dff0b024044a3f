"""A student beside its teacher, both of random weights; and teachers that can't be compared."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.config import DiTConfig
from relic_jax.errors import InputError
from relic_jax.evaluate import generate, student, world
from relic_jax.models import weights
from tests.small import SMALLEST, random_bundle, random_params

pytestmark = pytest.mark.usefixtures("compile_once")

CFG, DIT = SMALLEST, SMALLEST.dit


def write_teacher(path, dit: DiTConfig, stage: str = "teacher") -> str:
    params = random_params(dataclasses.replace(CFG, dit=dit))["dit"]
    config = {"stage": stage, "frames": 49, "model": {"dit": dataclasses.asdict(dit)}}
    weights.save_safetensors(path, params, {"config": json.dumps(config)})
    return str(path)


def test_both_are_measured_alike(tmp_path):
    model = random_bundle(CFG)
    wider = dataclasses.replace(DIT, dim=64, ffn_dim=64, yarn_scale=2.0)
    teacher, frames = student.teacher(write_teacher(tmp_path / "t.safetensors", wider), model, steps=2, guidance=2.0)
    assert frames == 45 and teacher.model.config.dit == wider
    scenes = world.join([part for _, part in world.scenes(CFG, 2, 900_000_000, frames)])
    measured = [student.measure(x, scenes, 0)[0] for x in (student.Contestant(model, generate.latents), teacher)]
    names = {"right_closer_fraction", "psnr_db", "frechet", "seconds_per_second"}
    assert measured[0].keys() == measured[1].keys() >= names
    assert measured[0]["frechet_vae"] == measured[1]["frechet_vae"]
    assert measured[0]["frechet"] != measured[1]["frechet"]
    assert all(figures["seconds_per_second"] > 0 for figures in measured)


def test_a_bidirectional_model_sees_actions_text_and_poses_and_keeps_the_picture():
    model = random_bundle(CFG)
    rng = np.random.default_rng(0)
    picture = jnp.asarray(rng.normal(size=(3, *CFG.latent_size, 16)), jnp.float32)
    words = rng.normal(size=(3, DIT.text_len, DIT.text_dim)).astype(np.float32)
    actions = rng.uniform(size=(3, 9, 13)).astype(np.float32)

    def make(words=words, actions=actions, weight=1.0, **options):
        given = generate.conditions(CFG, jnp.asarray(words), actions, jnp.full(3, weight))
        key = jax.random.key(0)
        return np.asarray(generate.whole_latents(model.params["dit"], CFG, picture, given, key, steps=2, **options))

    made = make()
    assert made.shape == (3, 3, *CFG.latent_size, 16)
    np.testing.assert_array_equal(made[:, 0], picture)
    for other in (make(words=2 * words), make(actions=actions[:, ::-1].copy()), make(weight=0.0), make(guidance=3.0)):
        assert (other[:, 1:] != made[:, 1:]).any()


@pytest.mark.parametrize(
    ("dit", "stage", "message"),
    [
        (DIT, "causal", "expected the run of a teacher, its configuration says stage=causal"),
        (dataclasses.replace(DIT, text_dim=32), "teacher", "the teacher doesn't fit the student: .*text_dim"),
    ],
)
def test_teachers_that_cannot_be_compared(tmp_path, dit, stage, message):
    path = tmp_path / "t.safetensors"
    weights.save_safetensors(
        path,
        {"x": np.zeros(1, np.float32)},
        {"config": json.dumps({"stage": stage, "frames": 45, "model": {"dit": dataclasses.asdict(dit)}})},
    )
    with pytest.raises(InputError, match=message):
        student.teacher(str(path), random_bundle(CFG), 2, 1.0)


def test_weights_without_a_record_are_no_teacher(tmp_path):
    path = tmp_path / "t.safetensors"
    weights.save_safetensors(path, {"x": np.zeros(1, np.float32)})
    with pytest.raises(InputError, match="stage=None"):
        student.teacher(str(path), random_bundle(CFG), 2, 1.0)
