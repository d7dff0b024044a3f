"""Sessions made again from their logs, branches from earlier blocks, other prompts, several sessions in a step."""

import json

import numpy as np
import pytest

from relic_jax.camera.actions import static_actions
from relic_jax.camera.keys import parse
from relic_jax.errors import InputError
from relic_jax.memory.contents import Held, contents
from relic_jax.memory.layout import layout
from relic_jax.stream.again import again
from relic_jax.stream.log import Log
from relic_jax.stream.session import Session

pytestmark = pytest.mark.usefixtures("compile_once")

PROMPT = "A room with a red floor."


@pytest.fixture
def picture():
    return np.random.default_rng(0).uniform(-1, 1, (64, 96, 3)).astype(np.float32)


def frames(chunks):
    return np.concatenate(list(chunks))


def through_json(log):
    return Log.from_dict(json.loads(json.dumps(log.to_dict())), "log")


def test_a_log_makes_the_same_frames_bit_for_bit(model, picture):
    walk = Session.open(model, picture, PROMPT, seed=3)
    shown = [*walk.play("w-4,l-24", speed=0.3)]
    walk.describe("A hall")
    shown += walk.play("d-8")
    walk = walk.branch(seed=9, blocks=2)
    shown += walk.play("s-8,wl-8")
    walk = walk.branch(seed=2**63)
    shown += walk.play("k-8")
    made = list(again(model, through_json(walk.log)))
    assert len(made) == len(shown)
    for one, other in zip(made, shown, strict=True):
        assert (one == other).all()


def test_a_saved_session_keeps_its_log(model, picture, tmp_path):
    walk = Session.open(model, picture, PROMPT)
    frames(walk.play("w-12"))
    walk.save(tmp_path / "walk")
    loaded = Session.load(tmp_path / "walk", model)
    expected = [frames(walk.play("l-8")), frames(loaded.play("l-8"))]
    assert (expected[0] == expected[1]).all()
    assert (list(again(model, loaded.log))[-1] == expected[0]).all()


def test_a_branch_from_an_earlier_block_goes_on_as_it_did(model, picture):
    """Memory made again from latents is the streamed one up to rounding, beyond the horizon of 10 latents too."""
    walk = Session.open(model, picture, PROMPT)
    frames(walk.play("w-4,l-56"))
    state = walk.branch()
    expected = frames(walk.play("d-16"))
    frames(walk.play("s-24"))
    assert walk.blocks == 13
    earlier = walk.branch(blocks=8)
    assert earlier.blocks == 8 and (earlier.latents == state.latents).all() and (earlier.actions == state.actions).all()
    np.testing.assert_allclose(earlier.pose[1], state.pose[1], atol=1e-5)
    again_made = frames(earlier.play("d-16"))
    assert np.abs(again_made.astype(int) - expected.astype(int)).max() <= 1
    other = walk.branch(seed=1, blocks=8)
    assert (frames(other.play("d-16")) != expected).any()
    whole = walk.branch(blocks=0)
    assert whole.frames == 0 and (frames(whole.play("w-4,l-56")) == frames(again(model, state.log))).all()
    with pytest.raises(InputError, match="a branch of 14 blocks: the session has 13"):
        walk.branch(blocks=14)


def test_another_prompt_changes_what_comes_and_a_branch_before_it_has_the_first(model, picture):
    walk = Session.open(model, picture, PROMPT)
    frames(walk.play("w-4"))
    same, other = walk.branch(), walk.branch()
    other.describe("Two blue boxes.")
    frames(same.play("w-8"))
    frames(other.play("w-8"))
    assert (same.latents[:2] == other.latents[:2]).all() and (same.latents[2:] != other.latents[2:]).any()
    assert other.log.prompts() == [PROMPT, "Two blue boxes.", "Two blue boxes."]
    assert other.branch(blocks=1).log.prompts() == [PROMPT, "Two blue boxes."]
    assert other.branch(blocks=0).log.prompts() == [PROMPT]
    with pytest.raises(InputError, match="prompt is empty"):
        other.describe("")


def test_sessions_of_any_age_in_one_step(model, picture):
    """Each as if alone, up to rounding; and its log makes the very same frames again."""
    young, old = Session.open(model, picture, PROMPT, 1), Session.open(model, -picture, "A hall", 2)
    frames(old.play("l-28"))
    alone = [young.branch(), old.branch()]
    static = static_actions(4)
    moves = [np.concatenate([static, parse("w-4")]), parse("dj-8")]
    together = Session.together([young, old], moves)
    for one, session, move in zip(together, alone, (moves[0][4:], moves[1]), strict=True):
        assert np.abs(one.astype(int) - frames(session.play(move)).astype(int)).max() <= 1
    assert young.frames == 5 and old.blocks == 5
    for session, last in zip((young, old), together, strict=True):
        assert (list(again(model, through_json(session.log)))[-1] == last).all()


def test_the_newest_view_attends_to_what_there_is(model, picture):
    walk = Session.open(model, picture, PROMPT)
    with pytest.raises(InputError, match="attends to nothing"):
        walk.attended()
    for _ in range(7):
        frames(walk.play("l-8"))
        mass = walk.attended()
        assert len(mass) == len(walk.memory) and mass.sum() == pytest.approx(1, abs=1e-4) and (mass > 0).all()
    before = frames(walk.branch().play("w-8"))
    assert (frames(walk.play("w-8")) == before).all(), "a probe changes nothing"


def test_contents_by_hand(model):
    """Window of 4 latents, blocks of 2, schedule 1 4 2, a horizon of 10: six latents in the ring."""
    cfg, lay = model.config, layout(model.config)
    assert contents(cfg, 0) == []
    assert [(h.latent, h.factor) for h in contents(cfg, 1)] == [(0, 1), (1, 1)]
    assert [(h.latent, h.factor) for h in contents(cfg, 3)] == [(0, 1), (1, 4), (2, 2), (3, 1), (4, 1), (5, 1)]
    full = contents(cfg, 5)  # the ring has eight latents to hold: two have gone, the picture stays
    assert [(h.latent, h.factor) for h in full] == [
        (0, 1), (2, 2), (3, 1), (4, 4), (5, 2), (6, 1), (7, 4), (8, 1), (9, 1),
    ]  # fmt: skip
    assert full[0] == Held(0, 1, 0, lay.picture)
    tokens = [token for held in full for token in range(held.start, held.stop)]
    assert len(tokens) == len(set(tokens)) and max(tokens) < lay.size


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "other"}, "is no log of a session"),
        ({"version": 2}, "has version 2 of the log; expected 1"),
        ({"seed": -1}, "log: seed: expected a whole number"),
        ({"prompt": 3}, "is no readable log"),
        ({"picture": {"shape": [1, 1, 1], "float32": "???"}}, "is no readable log"),
        ({"picture": {"shape": [1, 1, 1], "float32": "AADAfw=="}}, "log: picture, entry 0, 0, 0: expected a finite"),
        ({"events": [{"play": [[8, {"jump": 1}]]}]}, "'jump' is no action"),
        ({"events": [{"play": [[8, {"pan_left": -1}]]}]}, "log, event 0, frame 0, pan_left: expected a number in"),
        ({"events": [{"play": [[10**9, {}]]}]}, "1000000000 frames of an action"),
        ({"events": [{"play": [[8, {}]], "rows": 2, "row": 2}]}, "expected row below rows"),
        ({"events": [{"branch": {"blocks": -1, "seed": None}}]}, "log, event 0: blocks: expected a whole number"),
    ],
)
def test_a_log_that_is_none_is_one_sentence(model, picture, change, said):
    log = Session.open(model, picture, PROMPT).log.to_dict()
    with pytest.raises(InputError) as raised:
        Log.from_dict({**log, **change}, "log")
    assert said in str(raised.value)
