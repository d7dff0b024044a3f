"""Reading a program's text: loops, groups, sizes, arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.parallel import hlo

# ruff: noqa: E501 (a line of HLO is as long as it is)
TEXT = """HloModule jit_f, is_scheduled=true, num_partitions=8

%wrapped (p: bf16[2,64]) -> bf16[2,64] {
  ROOT %inner = bf16[2,64]{1,0} parameter(0)
}

%fused (a: f32[40,8,16], i: s32[]) -> f32[8,16] {
  %a = f32[40,8,16]{2,1,0} parameter(0)
  %i = s32[] parameter(1)
  %zero = s32[] constant(0)
  %slice = f32[1,8,16]{2,1,0} dynamic-slice(%a, %i, %zero, %zero), dynamic_slice_sizes={1,8,16}
  ROOT %flat = f32[8,16]{1,0} bitcast(%slice)
}

%gemm (x: bf16[4,8], w: bf16[8,16]) -> f32[4,16] {
  %x = bf16[4,8]{1,0} parameter(0)
  %w = bf16[8,16]{1,0} parameter(1)
  ROOT %dot = f32[4,16]{1,0} dot(%x, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%body (state: (s32[], bf16[3,2,64], f32[40,8,16])) -> (s32[], bf16[3,2,64], f32[40,8,16]) {
  %state = (s32[], /*index=1*/bf16[3,2,64]{2,1,0}, f32[40,8,16]{2,1,0}) parameter(0)
  %n = s32[] get-tuple-element(%state), index=0
  %q = bf16[3,2,64]{2,1,0} get-tuple-element(%state), index=1
  %stack = f32[40,8,16]{2,1,0} get-tuple-element(%state), index=2
  %exchanged = bf16[3,2,64]{2,1,0} all-to-all(%q), channel_id=1, replica_groups=mesh['data'=2,'seq'=4] {'seq'}, dimensions={1}, metadata={op_name="jit(f)/while/body/all_to_all"}
  %begun = ((f32[40,8,16]{2,1,0}, s32[]), f32[8,16]{1,0}, u32[]) fusion-start(%stack, %n), kind=kLoop, calls=%fused
  %layer = f32[8,16]{1,0} fusion-done(%begun)
  ROOT %next = (s32[], bf16[3,2,64]{2,1,0}, f32[40,8,16]{2,1,0}) tuple(%n, %exchanged, %stack)
}

%cond (state.1: (s32[], bf16[3,2,64], f32[40,8,16])) -> pred[] {
  %state.1 = (s32[], bf16[3,2,64]{2,1,0}, f32[40,8,16]{2,1,0}) parameter(0)
  ROOT %true = pred[] constant(true)
}

ENTRY %main (p0: bf16[4,8], p1: bf16[8,16]) -> f32[4,16] {
  %p0 = bf16[4,8]{1,0} parameter(0)
  %p1 = bf16[8,16]{1,0} parameter(1)
  %begin = (s32[], bf16[3,2,64]{2,1,0}, f32[40,8,16]{2,1,0}) tuple()
  %loop = (s32[], bf16[3,2,64]{2,1,0}, f32[40,8,16]{2,1,0}) while(%begin), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"40"}}
  %weights = (bf16[8,4]{1,0}, bf16[8,16]{1,0}) all-gather-start(%p1), channel_id=2, replica_groups=[4,2]<=[2,4]T(1,0), dimensions={1}
  %done = bf16[8,16]{1,0} all-gather-done(%weights)
  %product = f32[4,16]{1,0} fusion(%p0, %done), kind=kCustom, calls=%gemm
  %sum = f32[4,16]{1,0} all-reduce(%product), channel_id=3, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%cond
  ROOT %shifted = f32[4,16]{1,0} collective-permute(%sum), channel_id=4, source_target_pairs={{0,1},{1,2},{2,3}}
}
"""


@pytest.fixture(scope="module")
def program():
    return hlo.Program(TEXT)


def test_collectives_run_as_often_as_their_loop(program):
    found = {c.kind: c for c in program.collectives}
    assert {kind: c.count for kind, c in found.items()} == {
        "all-to-all": 40, "all-gather": 1, "all-reduce": 1, "collective-permute": 1,
    }  # fmt: skip
    assert found["all-to-all"].bytes == 40 * (3 * 2 * 64 * 2) * 3 / 4
    assert found["all-gather"].bytes == 8 * 16 * 2 * 1  # its operand, to the one other device
    assert found["all-reduce"].bytes == 4 * 16 * 4 * 2 * 3 / 4
    assert found["collective-permute"].bytes == 4 * 16 * 4
    assert found["all-to-all"].where == "jit(f)/while/body/all_to_all"
    assert (found["all-to-all"].dtype, found["all-to-all"].shape) == ("bf16", (3, 2, 64))


def test_groups_in_every_spelling(program):
    groups = {c.kind: c.groups.tolist() for c in program.collectives}
    assert groups["all-to-all"] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert groups["all-gather"] == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert groups["all-reduce"] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert groups["collective-permute"] == [[0, 1], [1, 2], [2, 3]]


def test_arithmetic_and_traffic(program):
    assert program.flops == {"bf16": 2 * 4 * 8 * 16}
    exchange, layer = 2 * 3 * 2 * 64 * 2, 8 * 16 * 4 + 4 + 8 * 16 * 4 + 4  # a fusion reads the slice, not the stack
    gathered, product = 8 * 16 * 2 + 8 * 4 * 2, 4 * 8 * 2 + 8 * 16 * 2 + 4 * 16 * 4
    assert program.bytes_moved() == 40 * (exchange + layer) + gathered + product + 2 * (2 * 4 * 16 * 4)


def test_a_real_program():
    """Products in a scan, a convolution, and an update in place."""

    def f(x, weights, image, kernel):
        y = jax.lax.scan(lambda x, w: (x @ w, None), x, weights)[0]
        z = jax.lax.conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return y, z

    shapes = ((4, 32), (7, 32, 32), (2, 6, 5, 3), (3, 3, 3, 8))
    program = hlo.Program(jax.jit(f).lower(*(jnp.zeros(s) for s in shapes)).compile().as_text())
    assert sum(program.flops.values()) == 7 * 2 * 4 * 32 * 32 + 2 * np.prod((2, 6, 5, 8)) * 27
    assert not program.collectives


def test_what_runs_is_known_only_then():
    """A loop whose length is an argument, and a branch that is seldom taken."""

    def f(turn, count, x, w):
        x = jax.lax.fori_loop(0, count, lambda _, x: jnp.tanh(x @ w), x)
        return jax.lax.cond(turn, lambda x: jnp.tanh(x @ w) @ w, lambda x: x, x)

    text = jax.jit(f).lower(True, 2, jnp.zeros((4, 32)), jnp.zeros((32, 32))).compile().as_text()
    product = 2 * 4 * 32 * 32
    assert hlo.Program(text, trips=3).flops == {"f32": (3 + 2) * product}
    assert hlo.Program(text, trips=3, rarely=False).flops == {"f32": 3 * product}
