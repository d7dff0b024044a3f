"""The key script: what it means and what it refuses."""

import numpy as np
import pytest

from relic_jax.camera import keys
from relic_jax.camera.actions import ACTIONS
from relic_jax.errors import InputError


def named(action):
    return {name: float(value) for name, value in zip(ACTIONS, action, strict=True) if value}


def test_the_issue_script():
    actions = keys.parse("w-32,wl-48,none-8")
    assert actions.shape == (88, 13) and actions.dtype == np.float32
    assert all(named(a) == {"dolly_in": 1} for a in actions[:32])
    assert all(named(a) == {"dolly_in": 1, "pan_right": 2} for a in actions[32:80])
    assert all(named(a) == {"static": 1} for a in actions[80:])


def test_every_key():
    wanted = dict(w="dolly_in", s="dolly_out", a="truck_left", d="truck_right", e="pedestal_up", q="pedestal_down",
                  i="tilt_up", k="tilt_down", j="pan_left", l="pan_right", o="roll_cw", u="roll_ccw")  # fmt: skip
    assert set(wanted) == set(keys.KEYS)
    for key, name in wanted.items():
        assert list(named(keys.parse(f"{key}-1")[0])) == [name]


def test_speed_case_and_spaces():
    np.testing.assert_array_equal(keys.parse(" WL - 2 , None-1 "), keys.parse("wl-2,none-1"))
    fast = keys.parse("wl-1,none-1", gamma=1.5)
    assert [named(a) for a in fast] == [{"dolly_in": 1.5, "pan_right": 3}, {"static": 1}]


def test_held_keys_for_drawing():
    assert keys.held("w-1,wl-2,none-1") == ["W", "WL", "WL", ""]


@pytest.mark.parametrize(
    "script, said",
    [
        ("", "empty script"),
        ("  ", "empty script"),
        ("w-4,x-3", "'x-3': unknown key 'x'; valid keys are W, S, A, D, E, Q, I, K, J, L, O, U and none"),
        ("nonew-3", "unknown key 'n'"),
        ("w", "'w': expected a dash and a number of frames"),
        ("w-", "expected a dash and a number of frames"),
        ("w-0", "from 1 to 100000, got '0'"),
        ("w--3", "got '-3'"),
        ("w-1.5", "got '1.5'"),
        ("w-two", "got 'two'"),
        ("w-99999999999999999999", "from 1 to 100000"),
        ("w-60000,s-60000", "at most 100000 frames"),
        ("w-3,", "segment '': expected keys"),
        ("-3", "segment '-3': expected keys"),
        ("w-3,,s-3", "segment '': expected keys"),
        ("ww-3", "'W' is there twice"),
        ("ws-3", "W and S are opposite"),
        ("wlj-3", "J and L are opposite"),
    ],
)
def test_wrong_scripts_are_refused_in_one_sentence(script, said):
    with pytest.raises(InputError) as error:
        keys.parse(script)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("gamma", [0.0, -1.0, float("nan"), float("inf"), 1e9])
def test_gamma_must_be_positive_and_no_slip(gamma):
    with pytest.raises(InputError, match="gamma"):
        keys.parse("w-1", gamma)
