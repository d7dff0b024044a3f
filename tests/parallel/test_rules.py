"""Partitions from axis names: full-size models leaf by leaf, collisions, and what the mesh can't divide."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from relic_jax.config import RelicConfig, VAEConfig
from relic_jax.errors import InputError
from relic_jax.models import module
from relic_jax.models.dit import DiT
from relic_jax.models.vae import VAE
from relic_jax.parallel import rules
from relic_jax.parallel.mesh import MeshShape
from relic_jax.parallel.rules import SERVING, TRAINING, Rules


def specs(kind, cfg, which, text):
    return rules.parameters(
        module.logical_axes(kind, cfg), module.abstract(kind, cfg), which, MeshShape.parse(text).sizes
    )


def test_serving_14b_divides_heads_and_hidden_features_only():
    found = specs(DiT, RelicConfig.wan_14b().dit, SERVING, "seq=4,tensor=2")
    blocks = found["blocks"]
    for attention in ("self_attention", "cross_attention"):
        for name in "qkv":
            assert blocks[attention][name] == {"kernel": P(None, "fsdp", "tensor"), "bias": P(None, "tensor")}
        assert blocks[attention]["o"] == {"kernel": P(None, "tensor", "fsdp"), "bias": P(None, None)}
        assert blocks[attention]["norm_q"]["scale"] == P(None, "tensor")
    assert blocks["ffn"]["fc1"] == {"kernel": P(None, "fsdp", "tensor"), "bias": P(None, "tensor")}
    assert blocks["ffn"]["fc2"] == {"kernel": P(None, "tensor", "fsdp"), "bias": P(None, None)}
    assert blocks["modulation"] == P(None, None, "fsdp") and blocks["norm"]["scale"] == P(None, None)
    assert blocks["action"]["proj"]["kernel"] == P(None, None, "fsdp")
    assert found["patch_embedding"] == {"kernel": P(None, "fsdp"), "bias": P(None)}
    assert found["head"]["kernel"] == P("fsdp", None)


def test_training_14b_stores_every_large_leaf_once():
    """On 32 devices none holds more than 1/32 of the matrices, and little else."""
    cfg, mesh = RelicConfig.wan_14b().dit, MeshShape.parse("fsdp=8,seq=4").sizes
    shapes = module.abstract(DiT, cfg)
    found = specs(DiT, cfg, TRAINING, "fsdp=8,seq=4")
    whole = total = 0
    for shape, spec in zip(jax.tree.leaves(shapes), jax.tree.leaves(found), strict=True):
        total += shape.size
        whole += shape.size if ("fsdp", "seq") not in spec else 0
    assert total > 14e9 and whole < 6e6
    assert mesh["fsdp"] * mesh["seq"] == 32


def test_every_parameter_of_every_model_has_a_rule():
    for kind, cfg in ((DiT, RelicConfig.wan_1_3b().dit), (VAE, VAEConfig.wan())):
        for which in (SERVING, TRAINING):
            leaves = jax.tree.leaves(specs(kind, cfg, which, "data=2,fsdp=2,seq=2,tensor=2"))
            assert len(leaves) == len(jax.tree.leaves(module.abstract(kind, cfg)))


def test_collision_is_said_by_name():
    both = dataclasses.replace(SERVING, embed=("tensor",))
    with pytest.raises(ValueError, match=r"axes \('embed', 'heads'\) would be divided over the mesh's 'tensor' twice"):
        both.spec(("embed", "heads"))
    with pytest.raises(ValueError, match="axis 'rows' has no sharding rule; there are .*stored_heads"):
        SERVING.spec(("batch", "rows"))


def test_what_the_mesh_does_not_divide():
    mesh = MeshShape(fsdp=8).sizes
    assert SERVING.parameter(("embed", "mlp"), (52, 1024), mesh) == P(None, "tensor")  # features of an action
    assert SERVING.parameter(("embed", "mlp"), (56, 1024), mesh) == P("fsdp", "tensor")
    with pytest.raises(InputError, match=r"10 heads can't be divided by the 4 devices of \('tensor',\)"):
        SERVING.parameter(("embed", "heads"), (64, 10), MeshShape(tensor=4).sizes)
    assert Rules().activation(("batch", "tokens"), (4, 16), mesh) == P(None, "seq")  # few samples stay whole
    assert Rules().activation(("batch", "tokens"), (8, 16), mesh) == P(("data", "fsdp"), "seq")


def test_without_a_mesh_nothing_is_added():
    x = jnp.ones((3, 5))
    assert rules.constrain(x, "batch", "tokens") is x
    program = jax.jit(lambda x: rules.constrain(x, "batch") * 2).lower(x).as_text()
    assert "shard" not in program.split("func", 1)[1]
