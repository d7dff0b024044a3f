"""The world model behind the server: what a user does to a walk is what a session does."""

import json

import numpy as np
import pytest

from relic_jax.camera.actions import ACTIONS
from relic_jax.errors import InputError
from relic_jax.serve import protocol
from relic_jax.serve.recorder import Recorder
from relic_jax.serve.relic import Relic
from relic_jax.serve.walks import actions_of
from relic_jax.stream.again import again
from relic_jax.stream.log import Log
from tests.small import CAPTIONS, SMALLEST, random_bundle

pytestmark = pytest.mark.usefixtures("compile_once")


@pytest.fixture(scope="module")
def bundle():
    return random_bundle(SMALLEST)


@pytest.fixture(scope="module")
def model(bundle):
    model = Relic(bundle)
    steps = list(model.warm_up(batch=2))
    assert [done for done, _, _ in steps] == [0, 1, 2, 3, 4] and steps[-1] == (4, 4, "ready")
    return model


@pytest.fixture
def picture():
    return np.random.default_rng(0).uniform(-1, 1, (32, 48, 3)).astype(np.float32)


def control(move=(0.0, 0.0, 0.0), turn=(0.0, 0.0, 0.0)):
    return protocol.Control(seq=1, move=move, turn=turn)


def play(model, walk, *controls):
    return [model.play([walk], [actions_of(held, walk, model.shape)])[0] for held in controls]


def test_a_control_is_an_action_by_hand(model, picture):
    walk, _ = model.open(picture, CAPTIONS[0], 0)
    first = actions_of(control((1.0, 0.5, -2.0), (-1.0, 0.0, 3.0)), walk, model.shape)
    static = dict.fromkeys(ACTIONS, 0.0) | {"static": 1.0}
    assert first.shape == (16, 13) and dict(zip(ACTIONS, first[3], strict=True)) == static
    held = {"truck_right": 1.0, "pedestal_up": 0.5, "dolly_out": 2.0, "pan_left": 2.0, "roll_cw": 6.0}
    assert dict(zip(ACTIONS, first[4], strict=True)) == dict.fromkeys(ACTIONS, 0.0) | held
    play(model, walk, None)
    assert (actions_of(None, walk, model.shape)[:, -1] == 1).all()


def test_a_walk_a_way_back_and_a_file(model, picture):
    walk, notes = model.open(picture, CAPTIONS[0], 5)
    assert any("its end is cut off" in note for note in notes)
    play(model, walk, control((0.0, 0.0, 1.0)), control(turn=(1.0, 0.0, 0.0)), None)
    assert walk.blocks == walk.made == 3 and walk.seed == 5
    assert walk.path() == [(0.0, pytest.approx(12 * SMALLEST.stream.translation_unit))] * 3
    rotations, positions = walk.poses()
    assert rotations.shape == (16, 3, 3) and positions.shape == (16, 3)
    memory = walk.memory(mass=True)
    assert [latent for latent, _ in memory.held] == list(range(12)) and sum(memory.mass) == pytest.approx(1, abs=1e-3)
    back = walk.branch(1, seed=8)
    assert (back.blocks, back.made, back.seed, len(back.path())) == (1, 3, 8, 1)
    again_begun = walk.again(seed=6)
    assert (again_begun.blocks, again_begun.made, again_begun.seed) == (0, 0, 6)
    loaded = model.load(back.save())
    assert (loaded.blocks, loaded.made, loaded.seed) == (1, 3, 8)
    assert np.allclose(loaded.path(), back.path(), atol=1e-5)
    assert (play(model, loaded, None)[0] == play(model, back, None)[0]).all()
    with pytest.raises(InputError, match="the session's file is not a file written by Session.save"):
        model.load(b"nonsense")


def test_a_recording_says_what_it_holds_and_comes_again(model, bundle, picture):
    walk, _ = model.open(picture, CAPTIONS[1], 0)
    play(model, walk, None)
    recorder, shown = Recorder(model.shape), []
    for held in (control((0.0, 0.0, 1.0)), control((1.0, 0.0, 0.0))):
        shown += play(model, walk, held)
        recorder.add(walk, shown[-1])
    walk = walk.branch(2, None)
    play(model, walk, control((0.0, 1.0, 0.0)))  # made and never sent
    shown += play(model, walk, control((0.0, -1.0, 0.0)))
    recorder.add(walk, shown[-1])
    film, log = recorder.finish(walk, model.name)
    values = json.loads(log)
    assert film[4:8] == b"ftyp" and values["recorded"]["blocks"] == [1, 2, 4] and len(values["recorded"]["poses"]) == 48
    assert {"jax", "device", "relic-jax"} <= set(values["versions"])
    made = list(again(bundle, Log.from_dict(values, "log")))
    for block, frames in zip((1, 2, 4), shown, strict=True):
        assert (made[block] == frames).all()


def test_two_walks_of_different_age_in_one_step(model, picture):
    one, _ = model.open(picture, CAPTIONS[0], 0)
    play(model, one, None, None)
    two, _ = model.open(-picture, CAPTIONS[1], 0)
    held = control((0.0, 0.0, 1.0)), control(turn=(0.0, 1.0, 0.0))
    frames = model.play([one, two], [actions_of(h, w, model.shape) for h, w in zip(held, (one, two), strict=True)])
    assert [len(f) for f in frames] == [16, 13]
    assert one.pose()[1][2] > 0 and two.pose()[1][2] == 0
