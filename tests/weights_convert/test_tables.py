"""The tables at full size, against names written down and against the PyTorch models; nothing is allocated."""

import dataclasses
import math

import numpy as np
import pytest

from relic_jax.errors import InputError
from relic_jax.models import weights
from weights_convert.table import CONV, FRAME_CONV, LINEAR, SAME, SQUEEZE, Row, expand, match, trailing
from weights_convert.tables import MODELS, wan_dit

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from tests.weights_convert import peers  # noqa: E402 (it imports torch)

WAN_NAMES = {
    "wan-t2v-14b": peers.wan_dit_names(40),
    "wan-t2v-1.3b": peers.wan_dit_names(30),
    "wan-vae": peers.wan_vae_names(),
    "umt5-xxl": peers.wan_text_names(24),
}
# Parameters of the published models.
COUNTS = {
    "wan-t2v-14b": 14_288_491_584,
    "wan-t2v-1.3b": 1_418_996_800,
    "wan-vae": 126_892_531,
    "umt5-xxl": 5_680_910_336,
}
ALL = pytest.mark.parametrize("name", WAN_NAMES)


def table(name, layout):
    return MODELS[name].table(layout)


def published(name, layout):
    return {tensor.source: tensor.shape for tensor in table(name, layout) if tensor.row.initial is None}


@ALL
def test_original_names_are_those_of_the_published_files(name):
    assert len(set(WAN_NAMES[name])) == len(WAN_NAMES[name])
    assert set(published(name, "wan")) == set(WAN_NAMES[name])


@ALL
def test_every_tensor_of_the_torch_model_has_its_place_and_shape(name):
    build = {"wan-vae": peers.torch_vae, "umt5-xxl": peers.torch_umt5}.get(name, peers.torch_dit)
    with torch.device("meta"):
        peer = build(MODELS[name].config)
    theirs = {key: tuple(value.shape) for key, value in peer.state_dict().items()}
    if name == "umt5-xxl":
        del theirs["encoder.embed_tokens.weight"]  # tied
    assert published(name, "diffusers") == theirs
    assert sum(parameter.numel() for parameter in peer.parameters()) == COUNTS[name]
    assert sum(map(math.prod, published(name, "diffusers").values())) == COUNTS[name]


@ALL
def test_both_layouts_hold_the_same_tensors(name):
    wan, other = ({t.place: t.shape for t in table(name, layout)} for layout in ("wan", "diffusers"))
    assert wan == other


@pytest.mark.parametrize("name", ["wan-t2v-14b", "wan-t2v-1.3b", "wan-vae"])
def test_original_names_mean_what_diffusers_takes_them_for(name):
    theirs = peers.diffusers_names(name, WAN_NAMES[name])
    other = {tensor.place: tensor.source for tensor in table(name, "diffusers")}
    ours = {tensor.source: other[tensor.place] for tensor in table(name, "wan") if tensor.row.initial is None}
    assert ours == theirs


@ALL
def test_leaves_without_a_source_are_relics_own(name):
    leaves = dict(weights.leaves(MODELS[name].leaves()))
    extra = {tensor.target for tensor in table(name, "wan") if tensor.row.initial is not None}
    kinds = {"wan-vae": ("latent_",), "umt5-xxl": ()}.get(name, ("conditioner.", "blocks.action.", "blocks.pose."))
    assert extra == {leaf for leaf in leaves if leaf.startswith(tuple(kinds))}


@pytest.mark.parametrize(
    ("transform", "shape"),
    [
        (SAME, (3, 4)),
        (LINEAR, (3, 4)),
        (CONV, (3, 4, 2, 5)),
        (CONV, (3, 4, 2, 5, 6)),
        (FRAME_CONV, (3, 4, 1, 1)),
        (SQUEEZE, (1, 6, 4)),
        (trailing(3), (5, 1, 1, 1)),
        (wan_dit.patches(peers.DIT), (96, 16, 1, 2, 2)),
    ],
)
def test_transforms_are_undone(transform, shape):
    x = np.arange(math.prod(shape)).reshape(shape)
    there = transform.to_relic(x)
    np.testing.assert_array_equal(transform.to_torch(there), x)
    assert transform.source_shape(there.shape) == shape


def test_a_table_that_is_no_bijection_is_refused():
    leaves = {"a": np.zeros((2, 3)), "b": np.zeros(3)}
    rows = [Row("x.{i}", "a"), Row("y", "b")]
    assert [t.place for t in expand(rows, leaves)] == ["a[0]", "a[1]", "b"]
    with pytest.raises(AssertionError, match="no row for .'b'"):
        expand(rows[:1], leaves)
    with pytest.raises(AssertionError, match="used more than once"):
        expand([*rows, Row("z", "b")], leaves)
    with pytest.raises(AssertionError, match="used more than once"):
        expand([rows[0], Row("x.1", "b")], leaves)


def test_all_problems_are_said_together():
    tensors = expand([Row("x.{i}", "a"), Row("y", "b"), Row("z", "c")], {k: np.zeros((2, 3)) for k in "abc"})
    shapes = {"x.0": (3,), "x.1": (4,), "z": (2, 3), "w": (1,), "rope.freqs": (8,)}
    with pytest.raises(InputError) as caught:
        match(tensors, shapes, {r"rope\..*": "computed"}, "model.safetensors")
    assert str(caught.value).split("\n") == [
        "model.safetensors doesn't fit the model; of 5 tensors:",
        "  x.1 has shape [4], expected [3]",
        "  y is missing, expected shape [2, 3]",
        "  w of shape [1] has no place in the model",
    ]
    good = {"x.0": (3,), "x.1": (3,), "y": (2, 3), "z": (2, 3), "rope.freqs": (8,)}
    assert match(tensors, good, {r"rope\..*": "computed"}, "").ignored == {"rope.freqs": "computed"}


def test_a_wrong_model_is_told_in_a_few_lines():
    shapes = {tensor.source: tensor.shape for tensor in table("wan-t2v-1.3b", "wan")}
    with pytest.raises(InputError) as caught:
        match(table("wan-t2v-14b", "wan"), shapes, {}, "x")
    lines = str(caught.value).split("\n")
    assert len(lines) == 14 and lines[-1].startswith("  and 1")


def test_a_model_of_another_width_has_no_published_statistics():
    cfg = dataclasses.replace(peers.VAE, latent_channels=8)
    tensors = dataclasses.replace(MODELS["wan-vae"], config=cfg).table("wan")
    extra = next(tensor for tensor in tensors if tensor.row.initial is not None)
    with pytest.raises(InputError, match="Wan's latent statistics are of 16 channels"):
        extra.row.initial((8,))
