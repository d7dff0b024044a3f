"""What a compiled program does, read from its own text: collectives, arithmetic, memory traffic.

XLA's cost analysis is not there for a machine that isn't, and counts the body of a loop once. The scheduled HLO
has everything: an instruction in the body of a `while` runs `known_trip_count` times (a scan over layers). Counts
are one device's.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterator

import numpy as np

_BYTES = {"pred": 1, "s4": 0.5, "u4": 0.5, "f4": 0.5, "f8": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2}
_BYTES |= {"u16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8, "c64": 8, "c128": 16}
_ARRAY = re.compile(r"\b(pred|bf16|[sufc]\d+)(\w*)\[([\d,]*)\]")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_COLLECTIVES = ("all-to-all", "all-gather", "all-reduce", "reduce-scatter", "collective-permute")
_PARTIAL = ("dynamic-slice", "gather", "dynamic-update-slice")  # what they touch of their first operand is small
_FREE = {  # instructions that move nothing themselves
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "after-all",
    "iota", "partition-id", "replica-id", "opt-barrier", "async-start", "async-update", "async-done",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line: `name = shape opcode(operands), attributes`."""

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    root: bool

    @functools.cached_property
    def arrays(self) -> list[tuple[str, tuple[int, ...]]]:
        """Type and sides of each array of the result."""
        return _arrays(self.shape)

    @functools.cached_property
    def bytes(self) -> float:
        sizes = (_BYTES["f8" if kind.startswith("f8") else kind] * math.prod(sides) for kind, sides in self.arrays)
        return float(sum(sizes))

    @property
    def kind(self) -> str:
        """The opcode, of an asynchronous instruction that of what it starts."""
        return self.opcode.removesuffix("-start")

    def called(self, attribute: str) -> list[str]:
        """Names of the computations in an attribute."""
        found = re.search(rf"\b{attribute}=(%?[\w.\-]+|\{{[^}}]*\}})", self.attributes)
        return re.findall(r"[\w.\-]+", found[1]) if found else []


Computation = dict[str, Instruction]


@dataclasses.dataclass(frozen=True)
class Collective:
    """A collective as it runs: `count` times in one call of the program, `bytes` sent by a device in all of them.

    `groups` are the devices that exchange with each other, by number; `dtype` and `shape` of its first operand.
    """

    kind: str
    count: int
    bytes: float
    groups: np.ndarray
    dtype: str
    shape: tuple[int, ...]
    where: str  # `op_name`: the functions it came from


class Program:
    """A compiled program, from `compiled.as_text()`.

    Args:
      text: the program's.
      trips: how often a loop runs whose end is only known when it runs.
      rarely: whether branches that are seldom taken are; then the longest of each conditional runs, else the shortest.
    """

    def __init__(self, text: str, *, trips: int = 1, rarely: bool = True) -> None:
        self.computations, self._entry = _parse(text)
        self._trips, self._branch = trips, max if rarely else min

    @functools.cached_property
    def _runs(self) -> list[tuple[Computation, Instruction, int]]:
        """Every instruction outside of fusions, with how often it runs."""
        return list(self._walk(self._entry, 1))

    def _walk(self, name: str, times: int) -> Iterator[tuple[Computation, Instruction, int]]:
        computation = self.computations[name]
        for instruction in computation.values():
            yield computation, instruction, times
            if instruction.opcode == "while":
                count = _trips(instruction, self._trips)
                yield from self._walk(instruction.called("body")[0], times * count)
            elif instruction.opcode == "conditional":  # one branch runs: the longest text is the dearest
                branches = instruction.called("branch_computations") or [
                    *instruction.called("true_computation"), *instruction.called("false_computation")
                ]  # fmt: skip
                yield from self._walk(self._branch(branches, key=self._length), times)
            elif instruction.opcode in ("call", "async-start"):
                for called in instruction.called("to_apply") or instruction.called("calls"):
                    yield from self._walk(called, times)

    def _length(self, name: str) -> int:
        """Instructions of a computation and of those it calls."""
        computation = self.computations[name]
        called = [c for one in computation.values() for a in ("body", "calls", "to_apply") for c in one.called(a)]
        return len(computation) + sum(self._length(c) for c in called)

    @functools.cached_property
    def collectives(self) -> list[Collective]:
        """All of them, in the order of the text."""
        found = []
        for computation, instruction, times in self._runs:
            kind = instruction.kind
            if kind in _COLLECTIVES:
                operands = [computation[name] for name in instruction.operands]
                groups = _groups(instruction.attributes)
                sent = _sent(kind, groups.shape[-1]) * sum(operand.bytes for operand in operands)
                where = re.search(r'op_name="([^"]*)"', instruction.attributes)
                found.append(
                    Collective(kind, times, times * sent, groups, *operands[0].arrays[0], where[1] if where else "")
                )
        return found

    @functools.cached_property
    def flops(self) -> dict[str, float]:
        """Operations of matrix products and convolutions (two a multiply-add), by the type of their factors."""
        total: dict[str, float] = collections.defaultdict(float)
        for computation, instruction, times in self._runs:
            fused = instruction.called("calls") if instruction.kind == "fusion" else []
            for inner in [computation, *(self.computations[name] for name in fused)]:
                for one in [instruction] if inner is computation else inner.values():
                    for kind, operations in _operations(inner, one):
                        total[kind] += times * operations
        return dict(total)

    def bytes_moved(self, scope: str = "") -> float:
        """Bytes read and written by instructions, each taken alone: what stays in a cache counts as well.

        Args:
          scope: a name given by `jax.named_scope`; then only what came from inside it.
        """
        return float(
            sum(
                times * self._traffic(computation, one)
                for computation, one, times in self._runs
                if scope in one.attributes
            )
        )

    def _traffic(self, computation: Computation, one: Instruction) -> float:
        if one.opcode in _FREE or one.opcode.endswith("-done"):
            return 0.0
        operands = [computation[name].bytes for name in one.operands if name in computation]
        result = one.bytes
        if one.opcode.endswith("-start") and one.kind != "all-reduce":  # asynchronous: the shape has the operands too
            result -= sum(operands)
        if one.kind in ("dynamic-slice", "gather"):
            return 2 * result
        if one.kind == "dynamic-update-slice":
            return 2 * operands[1]
        if one.kind != "fusion":
            return sum(operands) + result
        return _fusion_traffic(self.computations[one.called("calls")[0]], operands, result)


def _fusion_traffic(inner: Computation, operands: list[float], out: float) -> float:
    """A fusion reads whole what it doesn't slice, and writes an update in place."""
    total = 0.0
    for one in inner.values():
        if one.opcode == "parameter":
            index = int(re.match(r"\d+", one.attributes)[0])
            users = list(_users(inner, one.name))
            if users and all(user.opcode in _PARTIAL and first for user, first in users):
                total += sum(user.bytes for user, _ in users if user.opcode != "dynamic-update-slice")
            elif index < len(operands):
                total += operands[index]
    updates = [one for one in inner.values() if one.opcode == "dynamic-update-slice"]
    written = sum(inner[one.operands[1]].bytes for one in updates)
    return total + max(out - sum(one.bytes for one in updates), 0) + written


def _users(inner: Computation, name: str) -> Iterator[tuple[Instruction, bool]]:
    """Who takes an array, seen through bitcasts, and whether as its first operand (not as an index)."""
    for one in inner.values():
        if name in one.operands:
            if one.opcode == "bitcast":
                yield from _users(inner, one.name)
            else:
                yield one, one.operands[0] == name


def _operations(inner: Computation, one: Instruction) -> Iterator[tuple[str, float]]:
    if one.opcode == "dot":
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", one.attributes)
    elif one.opcode == "custom-call" and "__cublas$" in one.attributes:
        contracted = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', one.attributes)
    elif one.opcode == "convolution" or "__cudnn$conv" in one.attributes:
        yield _convolution(inner, one)
        return
    else:
        return
    kind, sides = inner[one.operands[0]].arrays[0]
    depth = math.prod(sides[int(i)] for i in re.findall(r"\d+", contracted[1]))
    yield kind, 2.0 * depth * math.prod(one.arrays[0][1])


def _convolution(inner: Computation, one: Instruction) -> tuple[str, float]:
    """Two operations for each output number, kernel cell and input feature that meet."""
    kernel_labels = re.search(r"dim_labels=\w+_(\w+)->", one.attributes)[1]
    kind, kernel = inner[one.operands[1]].arrays[0]
    per_output = math.prod(size for size, label in zip(kernel, kernel_labels, strict=True) if label != "o")
    return kind, 2.0 * per_output * math.prod(one.arrays[0][1])


def _sent(kind: str, n: int) -> float:
    """What a device sends for each byte of its operand, among n devices (rings for what isn't point to point)."""
    return {
        "all-to-all": (n - 1) / n,
        "all-gather": n - 1.0,
        "reduce-scatter": (n - 1) / n,
        "all-reduce": 2 * (n - 1) / n,
        "collective-permute": 1.0,
    }[kind]


def _groups(attributes: str) -> np.ndarray:
    """Device numbers, a row for each group; XLA writes them in four ways."""
    if found := re.search(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}", attributes):
        return np.array(re.findall(r"\{(\d+),(\d+)\}", found[1]), int).reshape(-1, 2)
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", attributes):
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", found[1])}
        named = re.findall(r"'(\w+)'", found[2])
        ids = np.arange(math.prod(sizes.values())).reshape(tuple(sizes.values()))
        order = [i for i, name in enumerate(sizes) if name not in named] + [list(sizes).index(name) for name in named]
        return ids.transpose(order).reshape(-1, math.prod(sizes[name] for name in named))
    if found := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes):
        groups, sides, order = ([int(i) for i in part.split(",")] if part else None for part in found.groups())
        return np.arange(math.prod(sides)).reshape(sides).transpose(order).reshape(groups)
    found = re.search(r"replica_groups=\{((?:\{[\d,]+\},?)*)\}", attributes)
    return np.array([[int(i) for i in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", found[1])])


def _trips(instruction: Instruction, unknown: int) -> int:
    found = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', instruction.attributes)
    return int(found[1]) if found else unknown


def _arrays(shape: str) -> list[tuple[str, tuple[int, ...]]]:
    return [
        (kind + rest, tuple(int(side) for side in sides.split(",") if side))
        for kind, rest, sides in _ARRAY.findall(shape)
    ]


def _parse(text: str) -> tuple[dict[str, Computation], str]:
    """Computations by name, and the name of the one that is run."""
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in text.splitlines():
        if header := _HEADER.match(line):
            current = computations.setdefault(header[2], {})
            entry = header[2] if header[1] else entry
        elif current is not None and (found := _INSTRUCTION.match(line)):
            instruction = _instruction(found[2], found[3], bool(found[1]))
            current[instruction.name] = instruction
    return computations, entry


def _instruction(name: str, rest: str, root: bool) -> Instruction:
    rest = re.sub(r"/\*.*?\*/", "", rest)
    shape, rest = _cut(rest)
    opcode, _, rest = rest.strip().partition("(")
    inside, attributes = _cut("(" + rest)
    if opcode in ("parameter", "constant"):  # the number of a parameter stands where operands do
        return Instruction(name, shape, opcode, (), inside[1:-1] + attributes, root)
    return Instruction(name, shape, opcode, tuple(re.findall(r"%([\w.\-]+)", inside)), attributes, root)


def _cut(text: str) -> tuple[str, str]:
    """The leading parenthesis, or word, and what follows it."""
    if not text.startswith("("):
        word, _, rest = text.partition(" ")
        return word, rest
    depth = 0
    for i, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[: i + 1], text[i + 1 :]
    raise ValueError(f"unbalanced parentheses in {text[:80]!r}")
