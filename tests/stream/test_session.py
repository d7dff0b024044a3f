"""The session people hold: frames, saving, branching, and a hundred blocks at constant cost."""

import gc
import time

import jax
import numpy as np
import pytest
import safetensors.flax

from relic_jax.errors import InputError
from relic_jax.stream import Session

PROMPT = "A room with a red floor."


@pytest.fixture
def picture():
    return np.random.default_rng(0).uniform(-1, 1, (64, 96, 3)).astype(np.float32)


def frames(chunks):
    return np.concatenate(list(chunks))


def test_plays_whole_blocks_the_picture_first(model, picture):
    walk = Session.open(model, picture, PROMPT)
    first, second = walk.play("w-4,l-8")  # the picture and 4 actions, then a block of 8
    assert first.shape == (5, 64, 96, 3) and second.shape == (8, 64, 96, 3) and first.dtype == np.uint8
    assert walk.frames == 13 and walk.latents.shape == (4, 8, 12, 16) and walk.actions.shape == (16, 13)
    assert len(frames(walk.play("none-1"))) == 8
    assert walk.frames == 21


def test_turning_shows_in_the_pose(model, picture):
    walk = Session.open(model, picture, PROMPT)
    frames(walk.play("w-4"))
    rotation, position = walk.pose
    np.testing.assert_allclose(rotation, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(position, [0, 0, 4 * model.config.stream.translation_unit], atol=1e-6)


def test_a_seed_is_a_walk(model, picture):
    one, two, other = (frames(Session.open(model, picture, PROMPT, seed).play("w-12")) for seed in (1, 1, 2))
    assert (one == two).all() and (one != other).any()


def test_saved_loaded_and_branched_sessions_go_on_bit_for_bit(model, picture, tmp_path):
    walk = Session.open(model, picture, PROMPT)
    frames(walk.play("w-4,l-40"))  # beyond the horizon of 10 latents
    walk.save(tmp_path / "walk.safetensors")
    branch, other = walk.branch(), walk.branch(seed=5)
    expected = frames(walk.play("s-16"))
    loaded = Session.load(tmp_path / "walk.safetensors", model)
    assert loaded.frames == 45
    for same in (branch, loaded):
        assert (frames(same.play("s-16")) == expected).all()
        assert (same.latents == walk.latents).all() and (same.actions == walk.actions).all()
    assert (frames(other.play("s-16")) != expected).any()


def test_bad_input_is_one_sentence(model, picture, tmp_path):
    with pytest.raises(InputError, match="prompt is empty"):
        Session.open(model, picture, "  ")
    with pytest.raises(InputError, match=r"image has shape \(32, 96, 3\), expected \(64, 96, 3\)"):
        Session.open(model, picture[:32], PROMPT)
    walk = Session.open(model, picture, PROMPT)
    with pytest.raises(InputError, match=r"actions has shape \(4, 12\)"):
        walk.play(np.zeros((4, 12), np.float32))
    with pytest.raises(InputError, match="does not exist"):
        Session.load(tmp_path / "none", model)
    (tmp_path / "text").write_text("nothing")
    with pytest.raises(InputError, match="not a file written by Session.save"):
        Session.load(tmp_path / "text", model)
    with pytest.raises(InputError, match="can't be written"):
        walk.save(tmp_path / "none" / "walk.safetensors")


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_an_action_that_is_no_number_never_reaches_the_state(model, picture, tmp_path, value):
    walk, untouched = (Session.open(model, picture, PROMPT) for _ in range(2))
    actions = np.zeros((4, 13), np.float32)
    actions[2, 0] = value
    with pytest.raises(InputError, match="^actions, frame 2, dolly_in: expected a number in"):
        walk.play(actions)
    with pytest.raises(InputError, match="speed"):
        walk.play("w-4", speed=value)
    assert walk.frames == 0
    assert (frames(walk.play("w-4")) == frames(untouched.play("w-4"))).all()


def test_a_picture_that_is_no_picture_and_a_seed_that_is_none_are_refused(model, picture):
    broken = picture.copy()
    broken[3, 5, 1] = np.nan
    with pytest.raises(
        InputError, match=r"^image, row 3, column 5, channel 1: expected a number in \[-1, 1\], got nan"
    ):
        Session.open(model, broken, PROMPT)
    with pytest.raises(InputError, match="^image, row"):
        Session.open(model, picture * 255, PROMPT)
    for seed in (-1, 2**64):
        with pytest.raises(InputError, match="^seed: expected a whole number"):
            Session.open(model, picture, PROMPT, seed)


def test_all_64_bits_of_a_seed_are_a_walk(model, picture):
    one, other = (frames(Session.open(model, picture, PROMPT, seed).play("w-4")) for seed in (0, 2**32))
    assert (one != other).any()


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("state/position", lambda x: x * np.nan, "state/position, entry 0, 0: expected a finite number"),
        ("latents", lambda x: x + np.inf, "latents, entry 0, 0, 0, 0: expected a finite number"),
        ("state/text", lambda x: x[:, :3], r"state/text has shape \(1, 3, 64\), expected \(1, 32, 64\)"),
        ("actions", None, "has no actions"),
    ],
)
def test_a_saved_session_that_was_tampered_with_is_refused(model, picture, tmp_path, name, change, said):
    walk = Session.open(model, picture, PROMPT)
    frames(walk.play("w-4"))
    walk.save(tmp_path / "walk")
    with safetensors.safe_open(tmp_path / "walk", framework="flax") as file:
        metadata, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    value = tensors.pop(name)
    if change:
        tensors[name] = jax.numpy.asarray(change(value))
    safetensors.flax.save_file(tensors, tmp_path / "walk", metadata)
    with pytest.raises(InputError, match=said):
        Session.load(tmp_path / "walk", model)


def test_a_session_of_another_config_is_refused(model, picture, tmp_path):
    import dataclasses

    Session.open(model, picture, PROMPT).save(tmp_path / "walk")
    other = dataclasses.replace(model.config.memory, mode="window")
    changed = dataclasses.replace(model, config=dataclasses.replace(model.config, memory=other))
    with pytest.raises(InputError, match="memory.mode='relic', the model has 'window'"):
        Session.load(tmp_path / "walk", changed)


@pytest.fixture
def little_garbage():
    """What there is by now is no garbage: to look through all of it takes longer than a block."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("little_garbage")
def test_a_hundred_blocks_compile_once_at_constant_time_and_memory(model, picture):
    ratios, programs = [], []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: programs.append(event) if event.endswith("/backend_compile_duration") else None
    )
    for _ in range(4):  # another process may take the core for a while; blocks that truly slow down do so every time
        walk = Session.open(model, picture, PROMPT, seed=3)
        seconds, live, compiled = [], [], []
        for _ in range(101):
            begun = time.perf_counter()
            frames(walk.play("w-4" if walk.frames == 0 else "wl-8"))
            seconds.append(time.perf_counter() - begun)
            gc.collect()
            live.append(sum(x.nbytes for x in jax.live_arrays()))
            compiled.append(len(programs))
        assert compiled[0] == compiled[-1]  # nothing is compiled after the first block
        assert len(set(live[1:])) == 1
        assert np.isfinite(walk.latents).all()
        ratios.append(np.median(seconds[90:101]) / np.median(seconds[25:36]))
        if ratios[-1] <= 1.1:
            return
    pytest.fail(f"blocks 90-100 took {ratios} times as long as blocks 25-35")
