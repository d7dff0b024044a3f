"""Captions of houses: the room that the first picture shows, and what it does not show.

What is behind, to the left and to the right of the camera follows from id maps of those directions, so that a sentence
is true, and says what a model can't know from the picture. Some are short, some are empty, as the seed draws it.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from relic_jax.camera import poses
from relic_jax.data.house.plan import Plan, Room, Thing
from relic_jax.data.house.scene import House
from relic_jax.data.house.truth import truth, visible

LONGEST = 30  # words and marks, so that a caption fits the tiny encoder
DIRECTIONS = {"ahead": 0.0, "left": -90.0, "right": 90.0, "behind": 180.0}
CLAUSES = ("room", "behind", "left", "right", "next", "ahead")  # by importance: the last is left out first
_SAID = {"ahead": "ahead", "left": "left", "right": "right", "behind": "behind you"}
_MOST = {"ahead": 2, "left": 1, "right": 1, "behind": 2}
_LOW = (32, 48)  # pixels of the id maps
SMALLEST = 0.008  # share of a view that a thing must cover to be named
_EMPTY, _SHORT = 0.12, 0.28  # shares of the captions


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """What there is around a camera.

    Fields:
      room: where it stands.
      things: by direction, the numbers of the room's things that one sees there, largest first; each in one direction,
        and those that the picture shows `ahead` alone.
      nearby: the rooms that a doorway leads to.
    """

    room: int
    things: dict[str, tuple[int, ...]]
    nearby: tuple[int, ...]


def look_around(house: House, rotation: Float[np.ndarray, "3 3"], position: Float[np.ndarray, "3"]) -> Surroundings:
    """What a camera sees in its picture and would see if it turned left, right and round."""
    yaw = poses.euler_from_rotation(rotation)[0]
    turned = [np.asarray(poses.rotation_from_euler(yaw + turn, 0.0, 0.0)) for turn in DIRECTIONS.values()]
    views = np.stack([rotation, *turned])
    height, width = _LOW
    ids, _ = truth(house, views, np.tile(position, (len(views), 1)), height=height, width=width)
    share = visible(ids, len(house.plan.things)).share
    room = house.plan.room_at(float(position[0]), float(position[2]))
    things: dict[str, list[tuple[float, int]]] = {name: [] for name in DIRECTIONS}
    for i, thing in enumerate(house.plan.things):
        if thing.room != room:
            continue
        most = int(share[1:, i].argmax())
        if share[0, i] > 0:
            if share[0, i] >= SMALLEST:
                things["ahead"].append((share[0, i], i))
        elif most and share[1 + most, i] >= SMALLEST:
            things[list(DIRECTIONS)[most]].append((share[1 + most, i], i))
    ordered = {name: tuple(i for _, i in sorted(found, reverse=True)) for name, found in things.items()}
    return Surroundings(room, ordered, tuple(house.plan.neighbours(room)))


def sentence(plan: Plan, around: Surroundings, clauses: Sequence[str] = CLAUSES) -> str:
    """The clauses that there is something to say about, as many as `LONGEST` lets, in the order of `CLAUSES`."""
    said = ""
    for name in [c for c in CLAUSES if c in clauses]:
        more = "; ".join(part for part in (said, _clause(plan, around, name)) if part)
        if length(more) <= LONGEST:
            said = more
    return said


def length(text: str) -> int:
    """Words and marks."""
    return len(text.replace(";", " ;").replace(",", " ,").split())


def caption(house: House, seed: int, rotation: Float[np.ndarray, "3 3"], position: Float[np.ndarray, "3"]) -> str:
    """The caption of a clip that begins here; the seed decides how much it says."""
    rng = np.random.default_rng([seed, 2])
    drawn = rng.random()
    if drawn < _EMPTY:
        return ""
    around = look_around(house, rotation, position)
    if drawn < _EMPTY + _SHORT:
        known = [c for c in CLAUSES if _clause(house.plan, around, c)]
        few = rng.permutation(known)[: int(rng.integers(1, 3))]
        return sentence(house.plan, around, [str(c) for c in few])
    return sentence(house.plan, around)


def name(thing: Thing) -> str:
    """A thing's name: colour, motif and kind."""
    words = " ".join(w for w in (thing.color, thing.motif, thing.kind) if w)
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _clause(plan: Plan, around: Surroundings, clause: str) -> str:
    if clause == "room":
        return _room(plan.rooms[around.room])
    if clause == "next":
        colors = [plan.rooms[i].walls[1] for i in around.nearby]
        rooms = "the next room is" if len(colors) == 1 else "the next rooms are"
        return f"{rooms} {' and '.join(colors)}" if colors else ""
    named = [name(plan.things[i]) for i in around.things[clause][: _MOST[clause]]]
    return f"{_SAID[clause]} {' and '.join(named)}" if named else ""


def _room(room: Room) -> str:
    parts = [f"{_material(*room.walls)} walls", f"{_material(*room.floor)} floor"]
    if not room.indoors:
        parts.append(f"{room.ceiling[1]} sky")
    return ", ".join(parts)


def _material(pattern: str, color: str) -> str:
    return color if pattern == "plain" else f"{pattern} {color}"
