"""Where every remembered token lives: tables made once on the host from the configuration.

The key-value buffer of a layer is

    [ picture | ring of compressed latents | window at full resolution ]

The ring holds `capacity` latents. Latent i is pooled by s_i = schedule[i mod period] per side, and
`capacity` is a multiple of the period, so ring slot i mod capacity always has the same size and every
token a fixed place. While the ring fills, the valid part is one range; once full, all of it stays valid
and the oldest latents are replaced. The picture (latent 0) is written twice: into the ring like every
latent, and into its own place, which becomes valid when the ring drops it.

A block of latents is compressed to at most `coarse` tokens, whatever its phase in the schedule: the
tables name, for each phase, which pooled patch each of these tokens is and where it goes.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np

from relic_jax.config import RelicConfig

FACTORS = (1, 2, 4)  # every pooling factor, in the order of the patch bank of `compress.bank`


@dataclasses.dataclass(frozen=True)
class CoarseGrid:
    """Tokens of a latent frame pooled by `factor` per side, on a `rows` x `columns` full-resolution grid.

    A side that `factor` doesn't divide is padded by edge replication. A token stands at its cell's
    centre, s j + (s - 1) / 2, clipped to the grid (SPEC 4).
    """

    factor: int
    rows: int
    columns: int

    @property
    def shape(self) -> tuple[int, int]:
        return -(-self.rows // self.factor), -(-self.columns // self.factor)

    @property
    def tokens(self) -> int:
        return math.prod(self.shape)

    def centres(self) -> np.ndarray:
        """Row and column of each token, float64 [2, tokens]."""
        places = [
            np.minimum(self.factor * np.arange(count) + (self.factor - 1) / 2, side - 1)
            for count, side in zip(self.shape, (self.rows, self.columns), strict=True)
        ]
        return np.stack(np.meshgrid(*places, indexing="ij")).reshape(2, -1)


@dataclasses.dataclass(frozen=True)
class Phase:
    """The compressed tokens of one block. Arrays are [coarse], valid tokens first."""

    source: np.ndarray  # index into the patch bank
    latent: np.ndarray  # which latent of the block, 0 .. block - 1
    centre: np.ndarray  # [2, coarse] row and column
    place: np.ndarray  # index into the ring
    count: int  # valid tokens


@dataclasses.dataclass(frozen=True)
class Layout:
    """The buffer's geometry. Counts of tokens unless named otherwise."""

    grid: tuple[int, int]
    block: int  # latents
    capacity: int  # latents the ring holds; 0 without memory
    window_blocks: int  # blocks at full resolution before the one being denoised
    picture: int
    ring: int
    window: int
    coarse: int
    slot_starts: np.ndarray = dataclasses.field(compare=False)  # [capacity + 1] first token of each ring slot
    phases: tuple[Phase, ...] = dataclasses.field(compare=False)  # one a block of the ring

    @property
    def tokens_per_latent(self) -> int:
        return math.prod(self.grid)

    @property
    def tokens_per_block(self) -> int:
        return self.block * self.tokens_per_latent

    @property
    def memory(self) -> int:
        """Tokens before the window."""
        return self.picture + self.ring

    @property
    def size(self) -> int:
        return self.memory + self.window


@functools.cache
def layout(cfg: RelicConfig) -> Layout:
    """The layout that a configuration asks for."""
    rows, columns = cfg.token_grid
    block, memory = cfg.stream.block, cfg.memory
    tokens = rows * columns
    schedule = {"relic": memory.schedule, "full": (1,), "window": ()}[memory.mode]
    grids = {s: CoarseGrid(s, rows, columns) for s in FACTORS}
    capacity = 0
    if schedule and memory.horizon > memory.window:
        capacity = memory.horizon - memory.window  # whole periods and whole blocks: the config has checked it
    factors = [schedule[i % len(schedule)] for i in range(capacity)]
    starts = np.concatenate([[0], np.cumsum([grids[s].tokens for s in factors], dtype=int)]).astype(int)
    blocks = [factors[i : i + block] for i in range(0, capacity, block)]
    coarse = max((sum(grids[s].tokens for s in b) for b in blocks), default=0)
    return Layout(
        grid=(rows, columns),
        block=block,
        capacity=capacity,
        window_blocks=memory.window // block - 1,
        picture=tokens if capacity and memory.keep_picture else 0,
        ring=int(starts[-1]),
        window=(memory.window - block) * tokens,
        coarse=coarse,
        slot_starts=starts,
        phases=tuple(_phase(b, i * block, starts, grids, coarse) for i, b in enumerate(blocks)),
    )


def _phase(factors: list[int], first: int, starts: np.ndarray, grids: dict[int, CoarseGrid], coarse: int) -> Phase:
    """Tables of the block whose first latent has ring slot `first`."""
    bank_starts = np.cumsum([0] + [len(factors) * grids[s].tokens for s in FACTORS])
    source, latent, centre = [], [], []
    for i, s in enumerate(factors):
        count = grids[s].tokens
        source.append(bank_starts[FACTORS.index(s)] + i * count + np.arange(count))
        latent.append(np.full(count, i))
        centre.append(grids[s].centres())
    count = int(starts[first + len(factors)] - starts[first])
    padding = coarse - count
    return Phase(
        source=np.pad(np.concatenate(source), (0, padding)).astype(np.int32),
        latent=np.pad(np.concatenate(latent), (0, padding)).astype(np.int32),
        centre=np.pad(np.concatenate(centre, axis=1), ((0, 0), (0, padding))),
        place=np.pad(starts[first] + np.arange(count), (0, padding)).astype(np.int32),
        count=count,
    )
