import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.camera import poses
from relic_jax.data import walks
from relic_jax.data.house import cast, geometry, library, plan, render, scene, truth
from relic_jax.pixels import lab

pytestmark = pytest.mark.usefixtures("compile_once")

SEEDS = range(6)


def start(seed: int) -> tuple[scene.House, np.ndarray, np.ndarray]:
    house = scene.build(seed)
    return house, *walks.start_pose(house, np.random.default_rng([seed, 1]))


def look(house: scene.House, rotation: np.ndarray, position: np.ndarray, **size: int) -> np.ndarray:
    pose = rotation[None].astype(np.float32), position[None].astype(np.float32)
    return np.asarray(render.render(house.geometry, *pose, **size))[0]


def hall(kind: str, color: str = "red", motif: str = "", turn: float = np.pi) -> scene.House:
    """One thing, three metres before a camera at (0, -1.5, 0) that looks along z, in a plain white room."""
    room = plan.Room((0.0, 0.0), (4.0, 3.0 if library.KINDS[kind].place == "wall" else 5.0), *[("plain", "white")] * 3)
    return scene.House(plan.Plan(3.0, (room,), (), (plan.Thing(kind, color, 0, (0.0, 3.0), turn, motif),)))


HERE = np.array([0.0, -1.5, 0.0])


@pytest.mark.parametrize("seed", SEEDS)
def test_frames_are_a_function_of_the_seed_and_bright(seed):
    house, rotation, position = start(seed)
    frame = look(house, rotation, position)
    again, *pose = start(seed)
    np.testing.assert_array_equal(frame, look(again, *pose))
    assert frame.shape == (64, 96, 3) and frame.dtype == np.uint8 and 15 < frame.mean() < 230 and frame.std() > 8


def test_kinds_can_be_told_apart_from_three_metres():
    """Silhouettes: of two kinds in the same colour, at least a fifth of the pixels of either shows one alone."""
    shapes = {}
    for kind in library.KINDS:
        ids, _ = truth.truth(hall(kind, motif="heart" if kind == "painting" else ""), np.eye(3)[None], HERE[None])
        shapes[kind] = ids[0] == geometry.THING
        assert shapes[kind].mean() > 0.012, kind
    for (one, a), (other, b) in itertools.combinations(shapes.items(), 2):
        assert (a ^ b).sum() > 0.2 * (a | b).sum(), (one, other)


def test_motifs_can_be_told_apart_from_three_metres():
    shown = {m: look(hall("painting", "blue", m), np.eye(3), HERE).astype(float) for m in library.MOTIFS}
    for one, other in itertools.combinations(shown, 2):
        differ = np.abs(shown[one] - shown[other]).max(-1) > 40
        assert differ.sum() >= 12, (one, other)


@pytest.mark.parametrize("color", library.COLORS)
def test_a_thing_is_nearest_to_the_colour_of_its_name(color):
    house = hall("arch", color)
    mask = truth.truth(house, np.eye(3)[None], HERE[None])[0][0] == geometry.THING
    pixels = look(house, np.eye(3), HERE)[mask] / 255
    lit = pixels[pixels.sum(1) >= np.quantile(pixels.sum(1), 0.2)]
    middle = np.median(lit, 0)
    distance = {c: np.linalg.norm(lab(np.array(library.COLORS[c])) - lab(middle)) for c in library.COLORS}
    assert color in sorted(distance, key=distance.__getitem__)[:2]


@pytest.mark.parametrize("seed", SEEDS)
def test_depths_lead_to_the_surfaces_that_ids_name(seed):
    house, rotation, position = start(seed)
    rotation = np.asarray(poses.rotation_from_euler(0.0, 10.0, 5.0)) @ rotation
    ids, depth = truth.truth(house, rotation[None], position[None])
    focal = 48 / np.tan(np.deg2rad(40))
    v, u = np.meshgrid((np.arange(64) - 31.5) / focal, (np.arange(96) - 47.5) / focal, indexing="ij")
    points = (np.stack([u, v, np.ones_like(u)], -1) * depth[0][..., None]) @ rotation + position
    for number, room in enumerate(house.plan.rooms):
        floor, walls, ceiling = (points[ids[0] == geometry.floor_id(number) + i] for i in range(3))
        np.testing.assert_allclose(floor[:, 1], 0, atol=1e-3)
        np.testing.assert_allclose(ceiling[:, 1], -house.plan.height, atol=1e-3)
        outside = [plan.outside(room, (x, z)) for x, _, z in walls]
        assert not walls.size or (-1e-3 < np.min(outside) and np.max(outside) < plan.WALL + 1e-3)
    for number, thing in enumerate(house.plan.things):
        on = points[ids[0] == geometry.THING + number]
        kind = library.KINDS[thing.kind]
        assert (np.hypot(*(on[:, [0, 2]] - thing.middle).T) < kind.radius + 0.25).all()
        assert (-on[:, 1] < kind.foot + kind.height + 0.05).all() and (-on[:, 1] > kind.foot - 0.1).all()
    assert (ids > 0).any() and (depth > 0).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_rays_agree_with_the_collision_geometry(seed):
    """Two implementations, in JAX and NumPy; round things stand within the boxes that a camera meets."""
    house, rng, trace = scene.build(seed), np.random.default_rng(seed), jax.jit(cast.trace)
    low, high = house.bounds
    for _ in range(60):
        position = rng.uniform(low, high)
        if not house.free(position, 0.1):
            continue
        rotation = np.asarray(poses.rotation_from_euler(*rng.uniform(-80, 80, 3)))
        ray = tuple(jnp.asarray(rotation[2, a : a + 1], jnp.float32) for a in range(3))
        turned, at = jnp.asarray(rotation, jnp.float32), jnp.asarray(position, jnp.float32)
        hit = trace(house.geometry, turned, at, ray)
        ahead = house.view_distance(rotation, position)
        assert float(hit.depth[0]) >= ahead - 1e-3
        if int(hit.primitive[0]) < geometry.START[1]:  # a box, a floor or a ceiling, if no round thing's box is before
            assert house.free(position + (ahead - 0.02) * rotation[2], 0.0) or ahead < 0.05


@pytest.mark.parametrize(("kind", "depth"), [("crate", 2.6), ("ball", 2.55), ("pillar", 2.76)])
def test_depth_of_known_things(kind, depth):
    """A ray straight ahead at the thing's own middle height meets its front."""
    height = {"crate": 0.4, "ball": 0.45, "pillar": 1.5}[kind]
    ids, far = truth.truth(hall(kind), np.eye(3)[None], np.array([[0.0, -height, 0.0]]), height=9, width=15)
    assert ids[0, 4, 7] == geometry.THING and far[0, 4, 7] == pytest.approx(depth, abs=2e-3)


def test_a_cone_is_as_wide_as_its_height_says():
    """Its radius at half its height is half that of its base: 0.2 m."""
    house = hall("cone")
    at = np.array([0.0, -(0.08 + 0.585), 0.0])
    for aside, expected in ((0.19, True), (0.21, False)):
        rotation = np.asarray(poses.rotation_from_euler(np.rad2deg(np.arctan2(aside, 3.0)), 0.0, 0.0))
        ids, _ = truth.truth(house, rotation[None], at[None], height=1, width=1)
        assert (ids[0, 0, 0] == geometry.THING) == expected


def test_another_colour_of_one_thing_changes_its_pixels_alone():
    house, rotation, position = start(2)
    ids, _ = truth.truth(house, rotation[None], position[None])
    for number, thing in enumerate(house.plan.things):
        new = tuple(dataclasses.replace(t, color="black") if t is thing else t for t in house.plan.things)
        other = scene.House(dataclasses.replace(house.plan, things=new))
        changed = (look(house, rotation, position) != look(other, rotation, position)).any(-1)
        near = ids[0] == geometry.THING + number
        grown = np.pad(near, 1)
        grown = np.any([np.roll(grown, s, (0, 1)) for s in itertools.product((-1, 0, 1), repeat=2)], 0)[1:-1, 1:-1]
        assert not (changed & ~grown).any()
