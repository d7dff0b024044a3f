"""Pairs of houses that differ in one thing which the first picture doesn't show, and sentences that say which is which.

Same picture, same keys, another sentence: whatever a model then shows in that place, it can only know from the words.
"""

import dataclasses

import numpy as np

from relic_jax.data import walks
from relic_jax.data.house import captions, geometry, library, render, scene
from relic_jax.data.house.plan import Plan, Thing
from relic_jax.data.house.scene import House
from relic_jax.data.house.truth import truth

CHANGES = ("color", "kind", "room")  # a thing's colour, what it is, or the colour of the next room's walls
_SPEED = 1.2
_ATTEMPTS = 12
_CLEAR = 40.0  # CIE76 between the two colours


@dataclasses.dataclass(frozen=True)
class Swap:
    """Two houses and what tells them apart.

    Fields:
      houses, sentences: in the same order.
      path: absolute poses, from the common picture to where the difference is in full view.
      what: the id of what differs (`geometry`), the same in both.
    """

    seed: int
    change: str
    houses: tuple[House, House]
    sentences: tuple[str, str]
    path: walks.Path
    what: int


def swap(seed: int, frames: int, change: str = "color") -> Swap | None:
    """The pair of a seed; none where nothing hidden comes into view by keys within so many frames."""
    house, rng = scene.build(seed), np.random.default_rng([seed, 3])
    for _ in range(_ATTEMPTS):
        pose = walks.start_pose(house, rng)
        around = captions.look_around(house, *pose)
        found = (_next_room if change == "room" else _thing)(house.plan, around, change, rng)
        if found is None:
            continue
        other, what, clauses = House(found[0]), found[1], found[2]
        path = _way(house, pose, what, frames, rng)
        if path is None or not _only_later(house, other, path, what):
            continue
        pair = tuple(captions.sentence(h.plan, around, clauses) for h in (house, other))
        if pair[0] != pair[1]:
            return Swap(seed, change, (house, other), (pair[0], pair[1]), path, what)
    return None


def _thing(
    plan: Plan, around: captions.Surroundings, change: str, rng: np.random.Generator
) -> tuple[Plan, int, list[str]] | None:
    """A plan with one hidden thing changed, its id and what a sentence must speak of."""
    hidden = [(d, i) for d in ("behind", "left", "right") for i in around.things[d][:1]]
    if not hidden:
        return None
    direction, number = hidden[int(rng.integers(len(hidden)))]
    old = plan.things[number]
    new = _recolored(plan, old, rng) if change == "color" else _another_kind(plan, old, rng)
    if new is None:
        return None
    things = tuple(new if i == number else thing for i, thing in enumerate(plan.things))
    return dataclasses.replace(plan, things=things), geometry.THING + number, ["room", direction]


def _recolored(plan: Plan, old: Thing, rng: np.random.Generator) -> Thing | None:
    room = plan.rooms[old.room]
    taken = {room.walls[1], room.floor[1], *(t.color for t in plan.things if t.room == old.room)}
    colors = [c for c in library.COLORS if c not in taken and library.distance(c, old.color) > _CLEAR]
    return dataclasses.replace(old, color=str(rng.choice(colors))) if colors else None


def _another_kind(plan: Plan, old: Thing, rng: np.random.Generator) -> Thing | None:
    """Another thing in its place: no wider, of a kind that the room doesn't have."""
    there, was = {t.kind for t in plan.things if t.room == old.room}, library.KINDS[old.kind]
    used = [t.kind for t in plan.things]
    kinds = [
        name
        for name, kind in library.KINDS.items()
        if kind.place == was.place and name not in there and used.count(name) < 2 and kind.radius <= was.radius + 0.1
    ]
    if not kinds:
        return None
    kind = str(rng.choice(kinds))
    return dataclasses.replace(old, kind=kind, motif=str(rng.choice(library.MOTIFS)) if kind == "painting" else "")


def _next_room(
    plan: Plan, around: captions.Surroundings, change: str, rng: np.random.Generator
) -> tuple[Plan, int, list[str]]:
    del change
    number = around.nearby[int(rng.integers(len(around.nearby)))]
    old = plan.rooms[number]
    taken = {r.walls[1] for r in plan.rooms} | {old.floor[1]}
    taken |= {t.color for t in plan.things if t.room == number}
    colors = [c for c in library.COLORS if c not in taken and library.distance(c, old.walls[1]) > _CLEAR]
    new = dataclasses.replace(old, walls=(old.walls[0], str(rng.choice(colors))))
    rooms = tuple(new if i == number else room for i, room in enumerate(plan.rooms))
    return dataclasses.replace(plan, rooms=rooms), geometry.floor_id(number) + 1, ["room", "next"]


def _way(
    house: House, pose: tuple[walks.Rotation, walks.Vector], what: int, frames: int, rng: np.random.Generator
) -> walks.Path | None:
    """The start, a pan towards the thing or the way through the doorway, and rest, `frames` in all."""
    del rng
    if what >= geometry.THING:
        to = np.array(house.plan.things[what - geometry.THING].middle) - pose[1][[0, 2]]
        near = pose[1][[0, 2]] + 0.01 * to / np.hypot(*to)
        path, made = walks.go(house, pose, near[None], _SPEED)
    else:
        ways = [w for w in house.ways(pose[1]) if geometry.floor_id(house.plan.room_at(*w[1])) + 1 == what]
        path, made = walks.go(house, pose, ways[0], _SPEED)
    if made < 1.0:
        return None
    rotations, positions = (
        np.concatenate([pose[0][None], path.rotations]),
        np.concatenate([pose[1][None], path.positions]),
    )
    order = np.minimum(np.arange(frames), len(rotations) - 1)
    return walks.Path(rotations[order], positions[order])


def _only_later(house: House, other: House, path: walks.Path, what: int) -> bool:
    """Whether the pictures are equal and the difference is in full view at the end."""
    first, last = (
        walks.Path(path.rotations[i : i + 1], path.positions[i : i + 1]) for i in (0, len(path.positions) - 1)
    )
    pictures = [
        np.asarray(render.render(h.geometry, first.rotations.astype(np.float32), first.positions.astype(np.float32)))
        for h in (house, other)
    ]
    shown = [(truth(h, last.rotations, last.positions)[0] == what).mean() for h in (house, other)]
    return bool(np.array_equal(pictures[0], pictures[1]) and min(shown) > 0.015)
