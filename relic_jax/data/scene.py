"""Procedural scenes: geometry, textures and words for a caption, from a seed alone.

A scene is one room (indoors, or a courtyard under the sky) with boxes, pillars, pictures and doors. World axes are
OpenCV's: x right, y **down**, z forward, metres; the floor is y = 0 and the room is centred on the y axis.
Textures are sums of smooth waves of 0.1 to 0.9 cycles per metre, so that frames hold no noise a VAE must spend bits on.
"""

import dataclasses
import typing

import jax
import numpy as np
from jaxtyping import Array, Float, Int

MAX_BOXES = 20

Vector = Float[np.ndarray, "3"]

# Names appear in captions, so the colours are well apart and each keeps its name when shaded.
PALETTE: dict[str, tuple[float, float, float]] = {
    "red": (0.80, 0.16, 0.14),
    "orange": (0.93, 0.50, 0.12),
    "yellow": (0.95, 0.82, 0.22),
    "green": (0.22, 0.58, 0.24),
    "lime": (0.62, 0.82, 0.26),
    "teal": (0.10, 0.55, 0.55),
    "cyan": (0.40, 0.82, 0.88),
    "blue": (0.16, 0.33, 0.78),
    "navy": (0.10, 0.14, 0.40),
    "purple": (0.48, 0.24, 0.66),
    "pink": (0.94, 0.52, 0.68),
    "brown": (0.46, 0.29, 0.17),
    "cream": (0.95, 0.89, 0.74),
    "white": (0.93, 0.93, 0.93),
    "grey": (0.52, 0.53, 0.56),
    "black": (0.12, 0.12, 0.14),
}
PATTERNS = ("plain", "striped", "checked", "marbled")
SKIES = {  # name: horizon, zenith, cloud
    "blue": ((0.74, 0.86, 0.95), (0.22, 0.46, 0.85), (0.97, 0.97, 0.98)),
    "sunset": ((0.98, 0.62, 0.32), (0.42, 0.28, 0.56), (0.98, 0.78, 0.62)),
    "overcast": ((0.80, 0.82, 0.84), (0.56, 0.60, 0.66), (0.90, 0.91, 0.92)),
    "night": ((0.20, 0.24, 0.44), (0.05, 0.06, 0.18), (0.30, 0.32, 0.50)),
}

# Rows of `Scene.surfaces`: the sky, the six faces of the room (-x, +x, -y, +y, -z, +z), then the boxes.
SKY, ROOM, BOX = 0, 1, 7
CEILING = 2  # of the room's faces


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Scene:
    """Geometry and appearance, ready for `render`. Lengths in metres, colours in [0, 1].

    Fields:
      room: half width, height, half depth of the room.
      centers, halves, turns: the boxes' centres, half sizes and rotation about y (cosine, sine); unused ones are
        degenerate and hidden under the floor.
      boxes: how many are used.
      surfaces: one row of appearance numbers for each surface, laid out as `Surface`.
      sky: 1.0 when the ceiling is open, else 0.0.
    """

    room: Float[Array | np.ndarray, "3"]
    centers: Float[Array | np.ndarray, "boxes 3"]
    halves: Float[Array | np.ndarray, "boxes 3"]
    turns: Float[Array | np.ndarray, "boxes 2"]
    boxes: Int[Array | np.ndarray, ""]
    surfaces: Float[Array | np.ndarray, "surfaces features"]
    sky: Float[Array | np.ndarray, ""]

    @property
    def bounds(self) -> tuple[Vector, Vector]:
        """Opposite corners of the room."""
        room = np.asarray(self.room, np.float64)
        return -room, room * [1, 0, 1]

    def free(self, position: Vector, margin: float) -> bool:
        """Whether a camera here keeps its distance from the room's sides and every box."""
        room = np.asarray(self.room)
        middle, half = np.array([0.0, -0.5, 0.0]) * room, np.array([1.0, 0.5, 1.0]) * room
        if (np.abs(position - middle) > half - margin).any():
            return False
        outside = np.maximum(np.abs(self._into_boxes(position - np.asarray(self.centers))) - self.halves, 0)
        return bool((np.linalg.norm(outside, axis=1) > margin).all())

    def view_distance(self, rotation: Float[np.ndarray, "3 3"], position: Vector) -> float:
        """How far the camera sees straight ahead, in metres (as `world.render` casts its rays)."""
        room, forward = np.asarray(self.room, np.float64), np.where(np.abs(rotation[2]) < 1e-9, 1e-9, rotation[2])
        middle, half = np.array([0.0, -0.5, 0.0]) * room, np.array([1.0, 0.5, 1.0]) * room
        wall = ((half * np.sign(forward) - (position - middle)) / forward).min()
        origin = self._into_boxes(position - np.asarray(self.centers))
        direction = self._into_boxes(np.broadcast_to(forward, origin.shape))
        inverse = 1.0 / np.where(np.abs(direction) < 1e-9, 1e-9, direction)
        reach = np.abs(inverse) * self.halves
        near, far = (-origin * inverse - reach).max(1), (-origin * inverse + reach).min(1)
        hits = near[(near < far) & (near > 0)]
        return float(min([wall, *hits]))

    def _into_boxes(self, v: Float[np.ndarray, "boxes 3"]) -> Float[np.ndarray, "boxes 3"]:
        """One vector a box, turned into the box's own axes."""
        cos, sin = np.asarray(self.turns).T
        return np.stack([cos * v[:, 0] - sin * v[:, 2], v[:, 1], sin * v[:, 0] + cos * v[:, 2]], 1)

    def ways(self, position: Vector) -> list[Float[np.ndarray, "2 2"]]:
        """None: one room, whose doors are shut."""
        del position
        return []


@dataclasses.dataclass(frozen=True)
class Description:
    """What a caption may say of a scene: static attributes only, as words."""

    indoors: bool
    size: str
    walls: tuple[str, str]  # colour, pattern
    floor: tuple[str, str]
    ceiling: str  # colour, or the sky's name when not indoors
    boxes: tuple[str, ...]  # colours
    pillars: tuple[str, ...]
    pictures: tuple[str, ...]
    doors: tuple[str, ...]


class Surface(typing.NamedTuple):
    """Columns of `Scene.surfaces`: three colours and a trim, two wave fields of two waves, light by face."""

    first: slice = slice(0, 3)
    second: slice = slice(3, 6)
    third: slice = slice(6, 9)
    trim: slice = slice(9, 12)
    waves: slice = slice(12, 28)  # four waves of (cycles/m along x, y, z; phase in cycles)
    contrast: int = 28  # slope of the first field: large is hard-edged
    product: int = 29  # 0: the first field's two waves add up, 1: they multiply (checks)
    third_amount: int = 30
    trim_width: int = 31
    light: slice = slice(32, 38)  # of faces -x, +x, -y, +y, -z, +z
    shadow: int = 38  # how much a surface darkens near its own edges (corners of a room)
    size: int = 39


SURFACE = Surface()

Row = Float[np.ndarray, " features"]


def build_scene(seed: int) -> tuple[Scene, Description]:
    """The scene of a seed, and its attributes in words."""
    rng = np.random.default_rng([seed, 0])
    indoors = bool(rng.random() < 0.65)
    half = rng.uniform(3.2, 7.0, 2) if indoors else rng.uniform(5.0, 9.5, 2)
    height = rng.uniform(2.7, 4.2) if indoors else rng.uniform(2.2, 4.0)
    room = np.array([half[0], height, half[1]])
    colors = [str(c) for c in rng.permutation(list(PALETTE))]
    sun = _unit(rng.normal(size=3) * [1, 0.4, 1] + [0, -0.9, 0])  # towards the light

    surfaces = np.zeros((BOX + MAX_BOXES, SURFACE.size))
    walls, wall_pattern = colors.pop(), str(rng.choice(PATTERNS, p=[0.08, 0.36, 0.28, 0.28]))
    floor, floor_pattern = colors.pop(), str(rng.choice(PATTERNS, p=[0.1, 0.25, 0.4, 0.25]))
    accent, second_accent, feature, ceiling = colors.pop(), colors.pop(), colors.pop(), colors.pop()
    for face in range(6):
        axis = face // 2
        if face == CEILING:
            color, pattern, other = ceiling, str(rng.choice(PATTERNS)), accent
        elif axis == 1:
            color, pattern, other = floor, floor_pattern, second_accent
        elif face == 5:  # one wall of its own colour: tells the four directions apart
            color, pattern, other = feature, wall_pattern, walls
        else:
            color, pattern, other = walls, wall_pattern, accent
        surfaces[ROOM + face] = _surface(rng, color, other, pattern, sun, flat_axis=axis, inside=True)
    sky = str(rng.choice(list(SKIES), p=[0.45, 0.25, 0.2, 0.1]))
    surfaces[SKY] = _sky_surface(rng, sky)

    things = _Things(rng, room, surfaces, sun)
    pillars = things.pillars(int(rng.integers(0, 4)), indoors)
    boxes = things.boxes(int(rng.integers(3, 8)))
    pictures = things.panels(int(rng.integers(4, 9)), door=False)
    doors = things.panels(int(rng.integers(1, 3)), door=True)
    scene = Scene(
        room=room.astype(np.float32),
        centers=things.centers.astype(np.float32),
        halves=things.halves.astype(np.float32),
        turns=things.turns.astype(np.float32),
        boxes=np.array(things.count, np.int32),
        surfaces=surfaces.astype(np.float32),
        sky=np.array(not indoors, np.float32),
    )
    area = 4 * half[0] * half[1]
    size = "small" if area < (70 if indoors else 150) else "large" if area > (130 if indoors else 250) else "medium"
    words = Description(
        indoors, size, (walls, wall_pattern), (floor, floor_pattern), ceiling if indoors else sky,
        boxes, pillars, pictures, doors,
    )  # fmt: skip
    return scene, words


def _unit(v: Vector) -> Vector:
    return v / np.linalg.norm(v)


def _color(rng: np.random.Generator, name: str) -> Vector:
    return np.clip(np.array(PALETTE[name]) + rng.uniform(-0.05, 0.05, 3), 0.02, 0.98)


def _surface(
    rng: np.random.Generator,
    color: str,
    other: str,
    pattern: str,
    sun: Vector,
    *,
    flat_axis: int | None = None,
    inside: bool = False,
    turn: float = 0.0,
    trim: tuple[str, float] | None = None,
) -> Row:
    """One row of `Scene.surfaces`. `flat_axis`: keep the waves within the plane normal to it."""
    row = np.zeros(SURFACE.size)
    base, mate = _color(rng, color), _color(rng, other)
    row[SURFACE.first] = base
    row[SURFACE.second] = {
        "plain": 0.8 * base + 0.1 * mate,
        "striped": 0.5 * base + 0.5 * mate,
        "checked": 0.5 * base + 0.5 * mate,
        "marbled": 0.5 * base + 0.5 * mate,
    }[pattern]
    row[SURFACE.third] = np.clip(base * rng.uniform(0.5, 0.8) + 0.15 * mate, 0, 1)
    row[SURFACE.third_amount] = rng.uniform(0.35, 0.7)
    row[SURFACE.waves] = _waves(rng, pattern, flat_axis).ravel()
    row[SURFACE.contrast] = {"plain": 0.5, "striped": 0.6, "checked": 0.8, "marbled": 0.6}[pattern]
    row[SURFACE.product] = float(pattern == "checked")
    row[SURFACE.trim] = _color(rng, trim[0]) if trim else base * 0.55
    row[SURFACE.trim_width] = trim[1] if trim else 0.0
    row[SURFACE.shadow] = 0.45 if inside else 0.0
    normals = np.repeat(np.eye(3), 2, 0) * np.tile([-1, 1], 3)[:, None] * (-1 if inside else 1)
    c, s = np.cos(turn), np.sin(turn)
    world = normals @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T
    facing = world @ sun
    row[SURFACE.light] = 0.80 + 0.34 * np.maximum(facing, 0) + 0.16 * np.minimum(facing, 0)
    return row


def _waves(rng: np.random.Generator, pattern: str, flat_axis: int | None) -> Float[np.ndarray, "4 4"]:
    """Four waves (cycles/m, phase): two of the first field, laid out by the pattern, and two slow ones."""
    first = np.array([0.0, 0.0, 0.0])
    free = [a for a in range(3) if a != flat_axis]
    along = rng.choice([a for a in free if a != 1] or free)
    first[along] = 1.0
    across = np.zeros(3)
    across[next(a for a in free if a != along)] = 1.0
    if rng.random() < 0.3 and pattern != "plain":  # diagonal
        first, across = (first + across) / np.sqrt(2), (first - across) / np.sqrt(2)
    rate = rng.uniform(0.25, 0.6)
    if pattern == "marbled":
        first, across = _direction(rng, flat_axis), _direction(rng, flat_axis)
        waves = [rate * first, rng.uniform(0.3, 0.7) * across]
    elif pattern == "checked":
        waves = [rate * 0.8 * first, rate * 0.8 * across]
    else:
        waves = [rate * first, rate * first]
    waves += [rng.uniform(0.1, 0.4) * _direction(rng, flat_axis) for _ in range(2)]
    phase = rng.random(4)
    if pattern == "striped":
        phase[1] = phase[0]
    return np.concatenate([np.array(waves), phase[:, None]], 1)


def _direction(rng: np.random.Generator, flat_axis: int | None) -> Vector:
    v = rng.normal(size=3)
    if flat_axis is not None:
        v[flat_axis] = 0
    return _unit(v)


def _sky_surface(rng: np.random.Generator, name: str) -> Row:
    row = np.zeros(SURFACE.size)
    row[SURFACE.first], row[SURFACE.second], row[SURFACE.third] = SKIES[name]
    row[SURFACE.third_amount] = 0.8
    row[SURFACE.waves] = _waves(rng, "marbled", flat_axis=1).ravel() * np.tile([0.7, 0.7, 0.7, 1], 4)
    row[SURFACE.light] = 1.0
    return row


class _Things:
    """Places boxes in a room one after another; keeps the arrays that `Scene` is made of."""

    def __init__(
        self, rng: np.random.Generator, room: Vector, surfaces: Float[np.ndarray, "surfaces features"], sun: Vector
    ):
        self.rng, self.room, self.surfaces, self.sun = rng, room, surfaces, sun
        self.centers = np.tile([0.0, 50.0, 0.0], (MAX_BOXES, 1))
        self.halves = np.full((MAX_BOXES, 3), 1e-3)
        self.turns = np.tile([1.0, 0.0], (MAX_BOXES, 1))
        self.count = 0
        self._disks: list[tuple[float, float, float]] = []  # taken floor: x, z, radius
        self._stretches: list[tuple[int, float, float]] = []  # taken wall: which, middle, half width

    def pillars(self, wanted: int, indoors: bool) -> tuple[str, ...]:
        """Columns from the floor to the ceiling (lower in a courtyard)."""
        names = []
        for _ in range(wanted):
            radius = self.rng.uniform(0.16, 0.4)
            height = self.room[1] if indoors else self.room[1] * self.rng.uniform(0.6, 0.95)
            names.append(self._stand(np.array([radius, height / 2, radius]), 0.0, margin=0.8))
        return tuple(n for n in names if n)

    def boxes(self, wanted: int) -> tuple[str, ...]:
        """Boxes on the floor, turned freely."""
        names = []
        for _ in range(wanted):
            half = self.rng.uniform([0.25, 0.2, 0.25], [0.9, 0.85, 0.9])
            names.append(self._stand(half, self.rng.uniform(0, np.pi), margin=0.15))
        return tuple(n for n in names if n)

    def panels(self, wanted: int, *, door: bool) -> tuple[str, ...]:
        """Pictures (or doors, on the floor) on the walls: thin boxes with a frame."""
        names, rng, taken = [], self.rng, self._stretches
        for _ in range(wanted * 3):
            if len(names) == wanted or self.count == MAX_BOXES:
                break
            wall = int(rng.integers(4))
            axis, sign = (0, 2)[wall // 2], (-1, 1)[wall % 2]
            half_width = 0.5 if door else rng.uniform(0.4, 1.2)
            half_height = 1.02 if door else rng.uniform(0.35, 0.7)
            reach = self.room[2 - axis] - half_width - 0.3
            if 2 * half_height + 0.4 > self.room[1] or reach <= 0:
                continue
            place = rng.uniform(-reach, reach)
            if any(w == wall and abs(place - p) < half_width + h + 0.2 for w, p, h in taken):
                continue
            taken.append((wall, place, half_width))
            center, half = np.zeros(3), np.zeros(3)
            center[axis], half[axis] = sign * self.room[axis], 0.05
            center[2 - axis], half[2 - axis] = place, half_width
            center[1] = -half_height if door else -rng.uniform(half_height + 0.4, self.room[1] - half_height - 0.1)
            half[1] = half_height
            names.append(self._add(center, half, 0.0, trim=0.15))
        return tuple(names)

    def _stand(self, half: Vector, turn: float, margin: float) -> str | None:
        radius = float(np.hypot(half[0], half[2]))
        for _ in range(8):
            reach = self.room[[0, 2]] - radius - margin
            if (reach <= 0).any() or self.count == MAX_BOXES:
                return None
            x, z = self.rng.uniform(-reach, reach)
            if all(np.hypot(x - a, z - b) > radius + r + 0.5 for a, b, r in self._disks):
                self._disks.append((x, z, radius))
                return self._add(np.array([x, -half[1], z]), half, turn, trim=self.rng.choice([0.0, 0.15]))
        return None

    def _add(self, center: Vector, half: Vector, turn: float, trim: float) -> str:
        color, other, edge = (str(c) for c in self.rng.choice(list(PALETTE), 3, replace=False))
        i, self.count = self.count, self.count + 1
        pattern = str(self.rng.choice(PATTERNS))
        self.centers[i], self.halves[i], self.turns[i] = center, half, (np.cos(turn), np.sin(turn))
        self.surfaces[BOX + i] = _surface(
            self.rng, color, other, pattern, self.sun, turn=turn, trim=(edge, trim) if trim else None
        )
        return color
