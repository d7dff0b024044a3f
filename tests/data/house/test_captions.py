import numpy as np
import pytest

from relic_jax.camera import poses
from relic_jax.data import walks
from relic_jax.data.house import captions, scene
from relic_jax.data.house.truth import truth, visible

pytestmark = pytest.mark.usefixtures("compile_once")

SEEDS = range(30)
MOTION = {"camera", "moving", "moves", "turns", "pans", "walks", "forward", "video"}


@pytest.fixture(scope="module")
def starts() -> list[tuple[scene.House, np.ndarray, np.ndarray]]:
    houses = [scene.build(seed) for seed in SEEDS]
    return [(h, *walks.start_pose(h, np.random.default_rng([s, 1]))) for s, h in zip(SEEDS, houses, strict=True)]


def test_things_are_where_a_sentence_says(starts):
    """By the plan: the bearing of a thing's middle, and the room's number."""
    said = 0
    for house, rotation, position in starts:
        around = captions.look_around(house, rotation, position)
        yaw = float(poses.euler_from_rotation(rotation)[0])
        assert around.room == house.plan.room_at(position[0], position[2])
        for direction, things in around.things.items():
            for i in things:
                to = np.array(house.plan.things[i].middle) - position[[0, 2]]
                bearing = np.rad2deg(np.arctan2(*to)) - yaw - captions.DIRECTIONS[direction]
                assert abs((bearing + 180) % 360 - 180) < 62, (direction, house.plan.things[i])
                said += direction != "ahead"
    assert said > len(starts)


def test_what_is_said_to_be_elsewhere_is_not_in_the_picture(starts):
    for house, rotation, position in starts:
        around = captions.look_around(house, rotation, position)
        share = visible(truth(house, rotation[None], position[None])[0], len(house.plan.things)).share[0]
        for direction, things in around.things.items():
            assert all((share[i] > 0) if direction == "ahead" else share[i] < 1e-3 for i in things)


def test_sentences_name_the_plan(starts):
    for house, rotation, position in starts:
        around = captions.look_around(house, rotation, position)
        text = captions.sentence(house.plan, around)
        room = house.plan.rooms[around.room]
        assert room.walls[1] in text and f"{room.floor[1]} floor" in text
        assert captions.length(text) <= captions.LONGEST and not MOTION & set(text.split())
        following = captions.sentence(house.plan, around, ["next"])
        assert all(house.plan.rooms[i].walls[1] in following for i in house.plan.neighbours(around.room))
        behind = captions.sentence(house.plan, around, ["behind"])
        assert behind.count(" and ") < 2 and (behind.startswith("behind you a") or not behind)


def test_a_seed_draws_how_much_is_said(starts):
    lengths = []
    for seed, (house, rotation, position) in zip(SEEDS, starts, strict=True):
        text = captions.caption(house, seed, rotation, position)
        assert text == captions.caption(house, seed, rotation, position)
        lengths.append(captions.length(text))
    assert 1 <= lengths.count(0) <= 9
    assert sum(0 < n <= 14 for n in lengths) >= 3 and sum(n > 14 for n in lengths) >= 10
