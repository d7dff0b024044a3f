"""What a mesh may be called, and what is said when it can't be."""

import jax
import pytest

from relic_jax.errors import InputError
from relic_jax.parallel import mesh as meshes
from relic_jax.parallel.mesh import MeshShape


def test_parse_and_back():
    shape = MeshShape.parse("seq=4, tensor=2")
    assert shape == MeshShape(seq=4, tensor=2) and shape.devices == 8 and str(shape) == "seq=4,tensor=2"
    assert MeshShape.parse("").devices == 1
    mesh = meshes.make(shape)
    assert mesh.axis_names == ("data", "fsdp", "seq", "tensor") and mesh.devices.shape == (1, 1, 4, 2)
    assert all(kind == jax.sharding.AxisType.Auto for kind in mesh.axis_types)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seq=4,rows=2", "'rows' is no axis, expected some of data, fsdp, seq, tensor as in seq=4"),
        ("seq=4,seq=2", "names 'seq' twice"),
        ("seq=0", "the size of 'seq' is '0', expected a number from 1 on"),
        ("seq", "the size of 'seq' is '', expected"),
    ],
)
def test_bad_text_is_named(text, message):
    with pytest.raises(InputError, match=message):
        MeshShape.parse(text)


def test_sizes_must_multiply_to_the_devices():
    with pytest.raises(InputError, match=r"mesh seq=4 needs 4 device\(s\), there are 8"):
        meshes.make(MeshShape(seq=4))


def test_without_a_mesh_there_is_none():
    assert meshes.current() is None
    with jax.set_mesh(meshes.make(MeshShape(seq=8))):
        assert meshes.current().shape["seq"] == 8
    assert meshes.current() is None
