import dataclasses

import numpy as np
import pytest

from relic_jax.data import builder, walks, worlds


@pytest.mark.parametrize("world", worlds.WORLDS)
def test_a_clip_shows_its_world(world):
    recipe = builder.Recipe(frames=5, height=16, width=24, seed=50, world=world)
    clip, again = recipe.clip(1), builder.world_clip(51, 5, 16, 24, world=world)
    np.testing.assert_array_equal(clip.video, again.video)
    assert clip.caption == again.caption
    of = worlds.WORLDS[world]
    rotations, positions = clip.absolute()
    shown = of.render(of.build(51), rotations, positions, height=16, width=24)
    assert np.abs(shown.astype(int) - clip.video).max() <= 2
    assert isinstance(of.build(51), walks.Scene) and walks.free(of.build(51), positions[0], 0.39)


def test_the_usual_world_is_not_said():
    """So that splits made before there was a choice go on."""
    recipe = builder.Recipe(frames=5, height=16, width=24, seed=50)
    assert "world" not in recipe.made_from
    assert dataclasses.replace(recipe, world="house").made_from["world"] == "house"
    assert not np.array_equal(recipe.clip(0).video, dataclasses.replace(recipe, world="house").clip(0).video)
