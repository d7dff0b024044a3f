"""Which latents the cache holds, and in which of its tokens: for people, and for figures about memory."""

from __future__ import annotations

import dataclasses

from relic_jax.config import RelicConfig
from relic_jax.memory.layout import layout


@dataclasses.dataclass(frozen=True)
class Held:
    """One latent in the cache: tokens `start` to `stop`, pooled by `factor` per side."""

    latent: int
    factor: int
    start: int
    stop: int


def contents(cfg: RelicConfig, blocks: int) -> list[Held]:
    """What the next block sees once `blocks` have been made, oldest first: picture, ring, window."""
    lay = layout(cfg)
    remembered = max(blocks - lay.window_blocks, 0) * lay.block
    oldest = max(remembered - lay.capacity, 0)
    held = [Held(0, 1, 0, lay.picture)] if lay.picture and oldest else []
    if lay.capacity:
        schedule = (1,) if cfg.memory.mode == "full" else cfg.memory.schedule
        for latent in range(oldest, remembered):
            slot = latent % lay.capacity
            start, stop = (lay.picture + int(lay.slot_starts[slot + i]) for i in (0, 1))
            held.append(Held(latent, schedule[latent % len(schedule)], start, stop))
    for latent in range(remembered, blocks * lay.block):
        start = lay.memory + latent % (lay.window_blocks * lay.block) * lay.tokens_per_latent
        held.append(Held(latent, 1, start, start + lay.tokens_per_latent))
    return held
