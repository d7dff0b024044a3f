"""Streaming generation: pure functions in `rollout`, the stateful shell people hold in `session`."""

from relic_jax.stream.session import Session

__all__ = ["Session"]
