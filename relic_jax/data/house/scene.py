"""A house as a camera meets it: where it may stand, how far it sees, which ways lead to the next room."""

import dataclasses
import functools

import numpy as np
from jaxtyping import Float

from relic_jax.data.house import geometry
from relic_jax.data.house import plan as plans
from relic_jax.data.house.plan import DOORWAY_HALF, WALL, Plan
from relic_jax.data.house.shapes import SHAPES

Vector = Float[np.ndarray, "3"]
Vectors = Float[np.ndarray, "primitives 3"]

_BEFORE, _BEYOND = 0.8, 1.2  # metres from a doorway's middle at which a way through it begins and ends


@dataclasses.dataclass(frozen=True)
class House:
    """A plan and its arrays; a `walks.Scene`."""

    plan: Plan

    @functools.cached_property
    def geometry(self) -> geometry.Geometry:
        return geometry.build(self.plan)

    @property
    def bounds(self) -> tuple[Vector, Vector]:
        """Opposite corners of the box that holds all rooms."""
        low = np.min([np.subtract(r.middle, r.half) for r in self.plan.rooms], 0)
        high = np.max([np.add(r.middle, r.half) for r in self.plan.rooms], 0)
        return np.array([low[0], -self.plan.height, low[1]]), np.array([high[0], 0.0, high[1]])

    def free(self, position: Vector, margin: float) -> bool:
        """Whether a camera here is within a room or a doorway and keeps its distance from all there is.

        Round things are met as the boxes around them.
        """
        if not margin < -position[1] < self.plan.height - margin:
            return False
        centers, halves, turns, _ = self._used
        near = np.maximum(np.abs(_into(turns, position - centers)) - halves, 0)
        if not (np.einsum("ij,ij->i", near, near) > margin * margin).all():
            return False
        return bool(self._inside((float(position[0]), float(position[2]))))

    def _inside(self, place: plans.Place) -> bool:
        if any(plans.outside(room, place) < 0 for room in self.plan.rooms):
            return True
        return any(
            abs(place[d.axis] - d.middle[d.axis]) <= WALL
            and abs(place[1 - d.axis] - d.middle[1 - d.axis]) < DOORWAY_HALF
            for d in self.plan.doorways
        )

    @functools.cached_property
    def _used(self) -> tuple[Vectors, Vectors, Float[np.ndarray, "primitives 2"], list[str]]:
        """Centres, half sizes, turns and shapes of the primitives there are."""
        counts = np.asarray(self.geometry.counts)
        rows = np.concatenate([np.arange(s, s + n) for s, n in zip(geometry.START, counts, strict=False)])
        table = np.asarray(self.geometry.table, np.float64)[rows]
        names = [name for name, n in zip(SHAPES, counts, strict=True) for _ in range(n)]
        return table[:, geometry.CENTER], table[:, geometry.HALF], table[:, geometry.TURN], names

    def view_distance(self, rotation: Float[np.ndarray, "3 3"], position: Vector) -> float:
        """How far the camera sees straight ahead, in metres, things taken as the boxes around them."""
        forward = np.where(np.abs(rotation[2]) < 1e-9, 1e-9, rotation[2])
        level = ((-self.plan.height if forward[1] < 0 else 0.0) - position[1]) / forward[1]
        centers, halves, turns, _ = self._used
        origin = _into(turns, position - centers)
        direction = _into(turns, np.broadcast_to(forward, origin.shape))
        inverse = 1.0 / np.where(np.abs(direction) < 1e-9, 1e-9, direction)
        reach = np.abs(inverse) * halves
        near, far = (-origin * inverse - reach).max(1), (-origin * inverse + reach).min(1)
        return float(min([level, *near[(near < far) & (near > 0)]]))

    def ways(self, position: Vector) -> list[Float[np.ndarray, "2 2"]]:
        """For each doorway of the room one stands in: a place before it and one beyond it, x and z."""
        here = self.plan.room_at(float(position[0]), float(position[2]))
        found = []
        for doorway in self.plan.doorways:
            if here in doorway.rooms:
                room = self.plan.rooms[here]
                side = np.sign(room.middle[doorway.axis] - doorway.middle[doorway.axis])
                across = np.eye(2)[doorway.axis] * side
                found.append(np.array(doorway.middle) + np.outer([_BEFORE, -_BEYOND], across))
        return found


def _into(turns: Float[np.ndarray, "primitives 2"], v: Vectors) -> Vectors:
    """One vector a primitive, turned into the primitive's own axes."""
    cos, sin = turns.T
    return np.stack([cos * v[:, 0] - sin * v[:, 2], v[:, 1], sin * v[:, 0] + cos * v[:, 2]], 1)


def build(seed: int) -> House:
    """The house of a seed."""
    return House(plans.draw(seed))
