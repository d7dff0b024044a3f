import numpy as np
import pytest

from relic_jax.camera import poses
from relic_jax.data import walks
from relic_jax.data.house import library, plan, scene

SEEDS = range(5)


def standing(house: scene.House, room: int, rng: np.random.Generator) -> np.ndarray:
    here = house.plan.rooms[room]
    for _ in range(200):
        x, z = np.array(here.middle) + rng.uniform(-1, 1, 2) * here.half
        position = np.array([x, -1.5, z])
        if house.free(position, walks.MARGIN):
            return position
    raise AssertionError("a room without a free place")


def test_free_knows_walls_doorways_and_things():
    house = scene.build(0)
    first, doorway = house.plan.rooms[0], house.plan.doorways[0]
    assert house.free(np.array([doorway.middle[0], -1.5, doorway.middle[1]]), 0.4), "in the doorway"
    assert not house.free(np.array([doorway.middle[0], -2.1, doorway.middle[1]]), 0.4), "under its beam"
    corner = np.array([first.middle[0] + first.half[0] - 0.3, -1.5, first.middle[1] + first.half[1] - 0.3])
    assert not house.free(corner, 0.4)
    assert not house.free(np.array([50.0, -1.5, 0.0]), 0.4), "outside"
    for thing in house.plan.things:
        if library.KINDS[thing.kind].place == "floor" and thing.kind != "arch":
            assert not house.free(np.array([thing.middle[0], -0.5, thing.middle[1]]), 0.0), thing


def test_most_doorways_let_one_through():
    passed = []
    for seed in SEEDS:
        house, rng = scene.build(seed), np.random.default_rng(seed)
        for room in range(len(house.plan.rooms)):
            position = standing(house, room, rng)
            for way in house.ways(position):
                path, _ = walks.go(house, (np.eye(3), position), way, 1.0)
                end = path.positions[-1]
                passed.append(house.plan.room_at(end[0], end[2]) in house.plan.neighbours(room))
    assert np.mean(passed) > 0.6


@pytest.mark.parametrize("seed", SEEDS)
def test_walks_stay_out_of_everything(seed):
    house = scene.build(seed)
    path = walks.sample_path(house, 157, np.random.default_rng([seed, 1]))
    assert path.positions.shape == (157, 3)
    assert all(house.free(p, walks.MARGIN) for p in path.positions)
    for thing in house.plan.things:  # by the plan alone: no camera within a round thing
        if thing.kind in ("pillar", "ball", "cone", "table") and library.KINDS[thing.kind].place == "floor":
            near = np.linalg.norm(path.positions[:, [0, 2]] - thing.middle, axis=1) < 0.2
            assert (-path.positions[near, 1] > library.KINDS[thing.kind].height).all()
    steps = np.linalg.norm(np.diff(path.positions, axis=0), axis=1)
    assert steps.max() <= walks.TRANSLATION_UNIT * walks.SPEEDS[1] * np.sqrt(3) + 1e-9


def test_a_third_of_the_walks_change_the_room():
    changed = 0
    for seed in range(100, 120):
        house = scene.build(seed)
        path = walks.sample_path(house, 81, np.random.default_rng([seed, 1]))
        changed += len({house.plan.room_at(p[0], p[2]) for p in path.positions}) > 1
    assert 4 <= changed <= 13


def test_ways_lead_into_the_neighbours():
    for seed in SEEDS:
        house = scene.build(seed)
        for number, room in enumerate(house.plan.rooms):
            ways = house.ways(np.array([room.middle[0], -1.5, room.middle[1]]))
            assert [house.plan.room_at(*before) for before, _ in ways] == [number] * len(ways)
            assert [house.plan.room_at(*beyond) for _, beyond in ways] == house.plan.neighbours(number)


def test_go_levels_the_view_and_arrives():
    house = scene.build(0)
    position = standing(house, 0, np.random.default_rng(0))
    tilted = np.asarray(poses.rotation_from_euler(30.0, 12.0, 8.0))
    path, made = walks.go(house, (tilted, position), position[[0, 2]][None] + [[0.2, 0.1]], 1.0)
    assert made == 1.0
    np.testing.assert_allclose(path.positions[-1], position + [0.2, 0, 0.1], atol=1e-6)
    assert poses.euler_from_rotation(path.rotations[-1])[1:] == pytest.approx((0.0, 0.0), abs=1e-6)
    assert plan.DOORWAY_HALF > walks.MARGIN
