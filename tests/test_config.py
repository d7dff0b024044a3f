"""Configurations: what can't be is refused by the dataclass that owns the field, before anything of it is made."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relic_jax.config import ConfigError, RelicConfig, TinyVAEConfig, from_config_dict

TINY = RelicConfig.tiny()
# Fields that count something: everything whole but switches and flags.
SIZES = [
    (part, field.name)
    for part in ("video", "dit", "vae", "text", "memory", "stream")
    for field in dataclasses.fields(getattr(TINY, part))
    if type(getattr(getattr(TINY, part), field.name)) is int
]


NONE_IS_FINE = {("dit", "text_layers"), ("text", "layers")}


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [(*size, value) for size in SIZES for value in (0, -1, 2**40) if value or size not in NONE_IS_FINE],
)
def test_sizes_of_nothing_and_huge_ones_are_refused_by_name(part, field, value):
    least = 0 if (part, field) in NONE_IS_FINE else 1
    with pytest.raises(ConfigError, match=f"^{part}.{field}={value} must lie between {least} and 1048576"):
        dataclasses.replace(getattr(TINY, part), **{field: value})


def test_entries_count_too():
    with pytest.raises(ConfigError, match=r"vae.multipliers=\(1, 0, 4\) must lie between 1"):
        dataclasses.replace(TINY.vae, multipliers=(1, 0, 4))
    with pytest.raises(ConfigError, match="tiny_vae.decoder_dims"):
        TinyVAEConfig(decoder_dims=(1, 2, -3, 4))


FLOATS = [("dit", "eps"), ("dit", "rope_theta"), ("dit", "yarn_scale"), ("dit", "yarn_beta_fast"), ("text", "eps"),
          ("stream", "translation_unit"), ("stream", "rotation_unit"), ("stream", "timesteps")]  # fmt: skip


@pytest.mark.parametrize(("part", "field"), FLOATS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused_by_name(part, field, value):
    values = dataclasses.asdict(TINY)
    values[part][field] = (1000.0, value) if field == "timesteps" else value
    with pytest.raises(ConfigError, match=f"{part}.{field}"):
        from_config_dict(RelicConfig, values)


SHORT = [st.text(max_size=3), st.lists(st.integers(), max_size=3)]
ANYTHING = st.one_of(st.integers(), st.floats(), st.none(), st.booleans(), *SHORT)


@settings(max_examples=300)
@given(
    st.sampled_from([(part, f.name) for part, _ in SIZES for f in dataclasses.fields(getattr(TINY, part))]),
    ANYTHING,
)
def test_whatever_a_field_is_set_to_it_is_refused_in_one_sentence_or_used(which, value):
    part, field = which
    values = dataclasses.asdict(TINY)
    values[part][field] = value
    try:
        from_config_dict(RelicConfig, values)
    except ConfigError as error:
        assert "\n" not in str(error)
