"""The plan of a house: rooms, doorways and things, by name and place. What a seed decides, and what captions say.

World axes are OpenCV's: x right, y **down**, z forward, metres; the floor is y = 0. Rooms are two or three rectangles
along the axes, joined by doorways that one walks through, so that there is always something behind a corner.
A plan is changed with `dataclasses.replace`: another colour of one thing is another house, equal everywhere else.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from relic_jax.data.house import library

WALL = 0.1  # half the thickness of what is between two rooms, metres
DOORWAY_HEIGHT = 2.2
DOORWAY_HALF = 0.9  # half its width
KIND_LIMIT = 2  # things of one kind in a house
_AISLE = 0.95  # between things on the floor: a camera that keeps 0.4 m from both gets through
_ATTEMPTS = 40

Place = tuple[float, float]
Vector = Float[np.ndarray, "2"]


@dataclasses.dataclass(frozen=True)
class Room:
    """A room's rectangle and its materials: (pattern, colour) of `library`.

    Fields:
      middle, half: centre and half sizes along x and z.
      ceiling: a pattern and a colour, or "sky" and the sky's name.
    """

    middle: Place
    half: Place
    walls: tuple[str, str]
    floor: tuple[str, str]
    ceiling: tuple[str, str]

    @property
    def indoors(self) -> bool:
        return self.ceiling[0] != "sky"


@dataclasses.dataclass(frozen=True)
class Doorway:
    """An opening between two rooms: the axis (0: x, 1: z) that leads through it, and its middle."""

    rooms: tuple[int, int]
    axis: int
    middle: Place


@dataclasses.dataclass(frozen=True)
class Thing:
    """A thing: what it is and where.

    Fields:
      motif: of a painting; else "".
      middle: x and z; of a thing on a wall, on that wall's face.
      turn: radians about the vertical; a thing on a wall faces along its own +z.
    """

    kind: str
    color: str
    room: int
    middle: Place
    turn: float
    motif: str = ""


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that a house is."""

    height: float
    rooms: tuple[Room, ...]
    doorways: tuple[Doorway, ...]
    things: tuple[Thing, ...]

    def neighbours(self, room: int) -> list[int]:
        """The rooms that a doorway leads to from this one."""
        return [d.rooms[1 - d.rooms.index(room)] for d in self.doorways if room in d.rooms]

    def room_at(self, x: float, z: float) -> int:
        """The room whose rectangle is nearest."""
        return int(np.argmin([outside(room, (x, z)) for room in self.rooms]))


def outside(room: Room, place: Place) -> float:
    """How far beyond a room's walls a place is, along the axis on which it is farthest; negative inside."""
    return max(abs(p - m) - h for p, m, h in zip(place, room.middle, room.half, strict=True))


def draw(seed: int) -> Plan:
    """The plan of a seed."""
    rng = np.random.default_rng([seed, 10])
    rooms, doorways = _layout(rng, 2 + int(rng.random() < 0.6))
    furnished = _Things(rng, rooms, doorways)
    for room in range(len(rooms)):
        furnished.furnish(room)
    return Plan(round(float(rng.uniform(2.8, 3.3)), 2), tuple(rooms), tuple(doorways), tuple(furnished.things))


def _layout(rng: np.random.Generator, count: int) -> tuple[list[Room], list[Doorway]]:
    """Rooms one after another, each joined to a side of an earlier one."""
    colors = [str(c) for c in rng.permutation(list(library.COLORS))]
    rooms, doorways = [_room(rng, (0.0, 0.0), _sizes(rng), colors)], []
    while len(rooms) < count:
        joined = int(rng.integers(len(rooms)))
        axis, sign = int(rng.integers(2)), int(rng.choice([-1, 1]))
        old, half = rooms[joined], _sizes(rng)
        slack = old.half[1 - axis] - DOORWAY_HALF - 0.35
        through, middle = [0.0, 0.0], [0.0, 0.0]
        face = old.middle[axis] + sign * old.half[axis]
        through[axis], middle[axis] = face + sign * WALL, face + sign * (2 * WALL + half[axis])
        through[1 - axis] = old.middle[1 - axis] + float(rng.uniform(-slack, slack))
        reach = half[1 - axis] - DOORWAY_HALF - 0.35
        middle[1 - axis] = through[1 - axis] + float(rng.uniform(-reach, reach))
        if any(_overlap(middle, half, room) for room in rooms):
            continue
        rooms.append(_room(rng, (middle[0], middle[1]), half, colors))
        doorways.append(Doorway((joined, len(rooms) - 1), axis, (through[0], through[1])))
    return rooms, doorways


def _sizes(rng: np.random.Generator) -> Place:
    x, z = rng.uniform(2.2, 3.4, 2)
    return float(x), float(z)


def _overlap(middle: list[float], half: Place, room: Room) -> bool:
    gaps = [abs(a - b) - h - k for a, b, h, k in zip(middle, room.middle, half, room.half, strict=True)]
    return max(gaps) < 2 * WALL - 1e-6


def _room(rng: np.random.Generator, middle: Place, half: Place, colors: list[str]) -> Room:
    """A room with colours that no other room has; takes them off the list."""
    walls, floor = colors.pop(), colors.pop()
    if rng.random() < 0.25:
        ceiling = ("sky", str(rng.choice(list(library.SKIES), p=[0.6, 0.25, 0.15])))
    else:
        ceiling = (str(rng.choice(library.CEILINGS)), str(rng.choice(library.CEILING_COLORS)))
    return Room(
        middle, half, (str(rng.choice(library.WALLS)), walls), (str(rng.choice(library.FLOORS)), floor), ceiling
    )


class _Things:
    """Puts things into rooms one after another. No two of a house have both kind and colour in common."""

    def __init__(self, rng: np.random.Generator, rooms: list[Room], doorways: list[Doorway]):
        self.rng, self.rooms, self.doorways = rng, rooms, doorways
        self.things: list[Thing] = []

    def furnish(self, room: int) -> None:
        """Three to five things: one or two on the walls, the others on the floor."""
        on_walls, on_floor = int(self.rng.integers(1, 3)), int(self.rng.integers(2, 4))
        for place, wanted in (("wall", on_walls), ("floor", on_floor)):
            for kind in self._kinds(room, place, wanted):
                spot = self._on_wall(room, kind) if place == "wall" else self._on_floor(room, kind)
                if spot is not None:
                    motif = str(self.rng.choice(library.MOTIFS)) if kind == "painting" else ""
                    self.things.append(Thing(kind, self._color(room, kind), room, *spot, motif))

    def _kinds(self, room: int, place: str, wanted: int) -> list[str]:
        used = [t.kind for t in self.things]
        kinds = [k for k, kind in library.KINDS.items() if kind.place == place and used.count(k) < KIND_LIMIT]
        return [str(k) for k in self.rng.permutation(kinds)[:wanted]]

    def _color(self, room: int, kind: str) -> str:
        around = {self.rooms[room].walls[1], self.rooms[room].floor[1]}
        around |= {t.color for t in self.things if t.kind == kind or t.room == room}
        return str(self.rng.choice([c for c in library.COLORS if c not in around]))

    def _on_wall(self, room: int, kind: str) -> tuple[Place, float] | None:
        """A free stretch of a wall: its middle, and the turn that faces into the room."""
        here, half_width = self.rooms[room], library.KINDS[kind].radius
        for _ in range(_ATTEMPTS):
            axis, sign = int(self.rng.integers(2)), int(self.rng.choice([-1, 1]))
            reach = here.half[1 - axis] - half_width - 0.25
            place = [0.0, 0.0]
            place[axis] = here.middle[axis] + sign * here.half[axis]
            place[1 - axis] = here.middle[1 - axis] + float(self.rng.uniform(-reach, reach))
            if all(_apart(place, spot) > half_width + taken + 0.3 for spot, taken in self._taken_walls(room)):
                turn = (0.5 * np.pi if axis == 0 else 0.0) + (np.pi if sign > 0 else 0.0)
                return (place[0], place[1]), float(turn)
        return None

    def _taken_walls(self, room: int) -> Iterator[tuple[Place, float]]:
        for door in self.doorways:
            if room in door.rooms:
                yield door.middle, DOORWAY_HALF + WALL
        for thing in self.things:
            if thing.room == room and library.KINDS[thing.kind].place == "wall":
                yield thing.middle, library.KINDS[thing.kind].radius

    def _on_floor(self, room: int, kind: str) -> tuple[Place, float] | None:
        """A free spot of the floor, nearer to the walls than to the middle, and one of eight turns."""
        here, radius = self.rooms[room], library.KINDS[kind].radius
        for _ in range(_ATTEMPTS):
            at = np.array(here.middle)
            side, reach = int(self.rng.integers(2)), np.array(here.half) - radius - 0.1
            at[side] += self.rng.choice([-1, 1]) * self.rng.uniform(0.6, 1.0) * reach[side]
            at[1 - side] += self.rng.uniform(-1, 1) * reach[1 - side]
            place = (float(at[0]), float(at[1]))
            if all(_apart(place, spot) > radius + taken for spot, taken in self._taken_floor(room)):
                return place, float(self.rng.integers(8) * np.pi / 4)
        return None

    def _taken_floor(self, room: int) -> Iterator[tuple[Place, float]]:
        for door in self.doorways:
            if room in door.rooms:
                yield door.middle, DOORWAY_HALF + 0.6
        for thing in self.things:
            kind = library.KINDS[thing.kind]
            if thing.room == room:
                yield thing.middle, kind.radius + _AISLE if kind.place == "floor" else 0.7


def _apart(one: Place | list[float], other: Place) -> float:
    return float(np.hypot(one[0] - other[0], one[1] - other[1]))
