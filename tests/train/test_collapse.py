"""What counts as collapse of a student's video, and what doesn't."""

import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.train import collapse


def moving(seed=0):
    """Clips whose content drifts and moves, as under a camera."""
    rng = np.random.default_rng(seed)
    path = np.cumsum(rng.normal(scale=0.3, size=(4, 12, 8, 8, 4)), axis=1)
    return jnp.asarray(path + rng.normal(size=(4, 1, 8, 8, 4)), jnp.float32)


def test_clips_like_the_real_ones_pass():
    measures = collapse.measure(moving(1), moving(2))
    assert set(measures) == set(collapse.LIMITS)
    assert all(0.5 < value < 2 for value in measures.values())
    collapse.check({name: float(value) for name, value in measures.items()} | {"loss": 1e9})
    assert all(abs(float(value) - 1) < 1e-6 for value in collapse.measure(moving(1), moving(1)).values())


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("dynamic_degree", lambda x: jnp.broadcast_to(x[:, 1:2], x.shape)),
        ("saturation", lambda x: 3 * x),
        ("drift", lambda x: x + 0.5 * jnp.arange(x.shape[1])[:, None, None, None]),
        ("detail", lambda x: jnp.broadcast_to(x.mean(axis=(2, 3), keepdims=True), x.shape)),
    ],
)
def test_collapse_is_named(name, broken):
    measures = {key: float(value) for key, value in collapse.measure(broken(moving(1)), moving(2)).items()}
    healthy = {key: 1.0 for key in collapse.LIMITS}
    with pytest.raises(collapse.Collapse, match=rf"the student has collapsed: {name} of its video is .* times"):
        collapse.check(healthy | {name: measures[name]})


def test_a_measure_that_is_no_number_is_collapse():
    with pytest.raises(collapse.Collapse, match="detail of its video is nan times"):
        collapse.check({key: 1.0 for key in collapse.LIMITS} | {"detail": float("nan")})
