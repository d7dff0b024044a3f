import dataclasses

import numpy as np
import pytest

from relic_jax.data.house import library, plan

SEEDS = range(40)


@pytest.fixture(scope="module")
def plans() -> list[plan.Plan]:
    return [plan.draw(seed) for seed in SEEDS]


def test_a_seed_is_a_plan(plans):
    assert plan.draw(3) == plans[3] != plans[4]
    assert {len(p.rooms) for p in plans} == {2, 3}
    assert all(len(p.doorways) == len(p.rooms) - 1 for p in plans)


def test_rooms_do_not_overlap_and_doorways_lie_between_them(plans):
    for p in plans:
        for i, one in enumerate(p.rooms):
            for other in p.rooms[:i]:
                gaps = np.abs(np.subtract(one.middle, other.middle)) - np.add(one.half, other.half)
                assert gaps.max() >= 2 * plan.WALL - 1e-9
        for doorway in p.doorways:
            for number in doorway.rooms:
                room, lateral = p.rooms[number], 1 - doorway.axis
                assert plan.outside(room, doorway.middle) == pytest.approx(plan.WALL)
                beside = abs(doorway.middle[lateral] - room.middle[lateral])
                assert beside + plan.DOORWAY_HALF < room.half[lateral]


def test_names_tell_rooms_and_things_apart(plans):
    for p in plans:
        assert len({(t.kind, t.color) for t in p.things}) == len(p.things)
        assert len({r.walls[1] for r in p.rooms}) == len(p.rooms)
        for thing in p.things:
            room = p.rooms[thing.room]
            assert thing.color not in (room.walls[1], room.floor[1])
            assert bool(thing.motif) == (thing.kind == "painting")


def test_things_stand_in_their_rooms_apart_and_off_the_doorways(plans):
    for p in plans:
        assert all(sum(t.room == i for t in p.things) >= 2 for i in range(len(p.rooms)))
        standing = [t for t in p.things if library.KINDS[t.kind].place == "floor"]
        for thing in p.things:
            assert p.room_at(*thing.middle) == thing.room
        for i, thing in enumerate(standing):
            radius = library.KINDS[thing.kind].radius
            assert plan.outside(p.rooms[thing.room], thing.middle) <= -radius
            for other in standing[:i]:
                apart = np.hypot(*np.subtract(thing.middle, other.middle))
                assert apart > radius + library.KINDS[other.kind].radius + 0.8 or thing.room != other.room


def test_one_thing_can_be_exchanged(plans):
    things = (dataclasses.replace(plans[0].things[0], color="lime"), *plans[0].things[1:])
    changed = dataclasses.replace(plans[0], things=things)
    assert changed.rooms == plans[0].rooms and changed != plans[0]
    assert changed.neighbours(0) == [i for i in range(len(changed.rooms)) if i and changed.neighbours(i)[0] == 0]
