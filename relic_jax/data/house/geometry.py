"""A house as arrays of constant shapes: what the renderer casts rays at, and what a camera runs into.

`Geometry` is the same size for every house, so that one compiled program renders all of them: unused rows lie far away
and are never visited.
"""

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from relic_jax.data.house import plan as plans
from relic_jax.data.house import shapes
from relic_jax.data.house.library import COLORS, KINDS, PATTERNS, SKIES, soft_mate
from relic_jax.data.house.plan import DOORWAY_HALF, DOORWAY_HEIGHT, WALL, Plan

ROOMS = 3
# Room for primitives of each shape, in the order of `shapes.SHAPES`: rows START[i] to START[i + 1] of the table.
CAPACITY = (64, 10, 20, 6)
START = tuple(int(n) for n in np.cumsum([0, *CAPACITY]))
SHADOWS = 18

# Columns of `Geometry.table`: centre, half sizes, turn about y (cosine, sine), two colours, pattern, glow, whether it
# is a wall (whose texture goes on from piece to piece). Of `floors` and `ceilings`: two colours and pattern.
CENTER, HALF, TURN, FIRST, SECOND = slice(0, 3), slice(3, 6), slice(6, 8), slice(8, 11), slice(11, 14)
PATTERN, GLOW, IS_WALL, COLUMNS = 14, 15, 16, 17

# Ids of what is at a pixel: the sky, then three a room, then the doorways' frames, then the things of the plan.
SKY, FLOOR, WALLS, CEILING, DOORWAY, THING = 0, 1, 2, 3, 10, 16

_FAR = 1e3
_FRAME = np.array([0.93, 0.93, 0.90])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Geometry:
    """Fields:
    table: one row a primitive, see the columns above; float32.
    counts: how many of each shape are used.
    ids: what each primitive belongs to.
    rooms: middle x, z and half sizes of each; an unused one is far away.
    height: of all rooms.
    floors, ceilings: their colours and pattern.
    skies: horizon, zenith, clouds, amount of clouds; the last number is 1 where a room has a sky.
    shadows: x, z and radius of what stands on the floor.
    """

    table: Float[Array | np.ndarray, "primitives columns"]
    counts: Int[Array | np.ndarray, "4"]
    ids: Int[Array | np.ndarray, " primitives"]
    rooms: Float[Array | np.ndarray, "rooms 4"]
    height: Float[Array | np.ndarray, ""]
    floors: Float[Array | np.ndarray, "rooms 7"]
    ceilings: Float[Array | np.ndarray, "rooms 7"]
    skies: Float[Array | np.ndarray, "rooms 11"]
    shadows: Float[Array | np.ndarray, "shadows 3"]


def floor_id(room: int) -> int:
    """The id of a room's floor; that of its walls and its ceiling follow."""
    return FLOOR + 3 * room


def build(plan: Plan) -> Geometry:
    """The arrays of a plan.

    Raises:
      ValueError: it has more primitives of a shape than there is room for.
    """
    rows: list[list[tuple[np.ndarray, int]]] = [[] for _ in shapes.SHAPES]
    for shape, row, what in _primitives(plan):
        rows[shapes.SHAPES.index(shape)].append((row, what))
    table, ids = np.zeros((START[-1], COLUMNS)), np.zeros(START[-1], np.int32)
    table[:, CENTER], table[:, TURN], table[:, HALF] = (0, _FAR, 0), (1, 0), 1e-3
    for start, room, of_shape in zip(START[:-1], CAPACITY, rows, strict=True):
        if len(of_shape) > room:
            raise ValueError(f"a plan has {len(of_shape)} primitives of a shape of which {room} find room")
        for i, (row, what) in enumerate(of_shape, start):
            table[i], ids[i] = row, what
    rooms, floors = np.tile([_FAR, _FAR, 1.0, 1.0], (ROOMS, 1)), np.zeros((ROOMS, 7))
    ceilings, skies, shadows = np.zeros((ROOMS, 7)), np.zeros((ROOMS, 11)), np.tile([_FAR, _FAR, 1.0], (SHADOWS, 1))
    for i, room in enumerate(plan.rooms):
        rooms[i] = *room.middle, *room.half
        floors[i] = _look(*room.floor)
        if room.indoors:
            ceilings[i] = _look(*room.ceiling)
        else:
            skies[i] = np.concatenate([np.hstack(SKIES[room.ceiling[1]]), [1.0]])
    standing = [t for t in plan.things if KINDS[t.kind].place == "floor"]
    for i, thing in enumerate(standing):
        shadows[i] = *thing.middle, 0.75 * KINDS[thing.kind].radius
    f = np.float32
    return Geometry(
        table.astype(f), np.array([len(r) for r in rows], np.int32), ids, rooms.astype(f), np.array(plan.height, f),
        floors.astype(f), ceilings.astype(f), skies.astype(f), shadows.astype(f),
    )  # fmt: skip


def _look(pattern: str, color: str) -> Float[np.ndarray, "7"]:
    return np.concatenate([COLORS[color], soft_mate(color), [PATTERNS.index(pattern)]])


def _row(
    center: np.ndarray,
    half: np.ndarray,
    turn: float,
    look: Float[np.ndarray, "7"],
    glow: float = 0.0,
    wall: bool = False,
) -> Float[np.ndarray, " columns"]:
    return np.concatenate([center, half, [np.cos(turn), np.sin(turn)], look, [glow, float(wall)]])


def _primitives(plan: Plan) -> Iterator[tuple[str, np.ndarray, int]]:
    """Shape, row and id of all that a house is built of, without floors and ceilings."""
    for i, room in enumerate(plan.rooms):
        look = _look(*room.walls)
        for center, half in _walls(plan, i):
            yield "box", _row(center, half, 0.0, look, wall=True), floor_id(i) + 1
    for i, doorway in enumerate(plan.doorways):
        for center, half in _frame(doorway):
            look = np.concatenate([_FRAME, _FRAME, [0]])
            yield "box", _row(center, half, 0.0, look), DOORWAY + i
    for i, thing in enumerate(plan.things):
        cos, sin = np.cos(thing.turn), np.sin(thing.turn)
        for part in shapes.parts(thing.kind, thing.color, thing.motif, plan.height):
            x, y, z = part.middle
            center = np.array([thing.middle[0] + cos * x + sin * z, y, thing.middle[1] - sin * x + cos * z])
            look = np.concatenate([*part.colors, [part.pattern_index]])
            yield part.shape, _row(center, np.array(part.half), thing.turn, look, part.glow), THING + i


def _box(axis: int, at: float, lateral: tuple[float, float], up: tuple[float, float], thick: float) -> tuple:
    """Centre and half sizes of a slab across an axis, from its extents along the wall and in height."""
    center, half = np.zeros(3), np.zeros(3)
    center[2 * axis], half[2 * axis] = at, thick
    center[2 - 2 * axis], half[2 - 2 * axis] = np.mean(lateral), np.diff(lateral)[0] / 2
    center[1], half[1] = -np.mean(up), np.diff(up)[0] / 2
    return center, half


def _walls(plan: Plan, room: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The slabs around a room: a wall, or what is left of it beside and above doorways."""
    here = plan.rooms[room]
    for axis in (0, 1):
        for sign in (-1, 1):
            face = here.middle[axis] + sign * here.half[axis]
            at, other = face + sign * WALL / 2, 1 - axis
            low, high = (here.middle[other] + s * (here.half[other] + WALL) for s in (-1, 1))
            openings = sorted(
                d.middle[other]
                for d in plan.doorways
                if room in d.rooms and d.axis == axis and abs(d.middle[axis] - face) < 1.5 * WALL
            )
            for middle in openings:
                yield _box(axis, at, (low, middle - DOORWAY_HALF), (0.0, plan.height), WALL / 2)
                around = (middle - DOORWAY_HALF, middle + DOORWAY_HALF)
                yield _box(axis, at, around, (DOORWAY_HEIGHT, plan.height), WALL / 2)
                low = middle + DOORWAY_HALF
            yield _box(axis, at, (low, high), (0.0, plan.height), WALL / 2)


def _frame(doorway: plans.Doorway) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Two posts and a beam, a little before the walls."""
    at, middle, out = doorway.middle[doorway.axis], doorway.middle[1 - doorway.axis], 0.12
    for side in (-1, 1):
        inner = middle + side * DOORWAY_HALF
        lateral = (min(inner, inner + side * out), max(inner, inner + side * out))
        yield _box(doorway.axis, at, lateral, (0.0, DOORWAY_HEIGHT + out), WALL + 0.03)
    across = (middle - DOORWAY_HALF, middle + DOORWAY_HALF)
    yield _box(doorway.axis, at, across, (DOORWAY_HEIGHT, DOORWAY_HEIGHT + out), WALL + 0.03)
