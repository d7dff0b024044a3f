"""A session made again from its log: the same frames, bit for bit on the same device and versions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8

from relic_jax.errors import InputError
from relic_jax.models import bundle
from relic_jax.stream.log import Describe, Log, Play
from relic_jax.stream.session import Session


def again(model: bundle.Bundle, log: Log) -> Iterator[UInt8[np.ndarray, "N H W 3"]]:
    """The frames of all blocks that were made, those that a branch dropped later among them, block by block.

    Raises:
      InputError: the log is of another model.
    """
    session = Session.begin(model, log)
    size = model.config.stream.block * model.config.vae.temporal_stride
    for event in log.events:
        if isinstance(event, Play):
            if len(event.actions) != size:
                raise InputError(f"the log has a block of {len(event.actions)} frames, the model's have {size}")
            yield _block(session, event)
        elif isinstance(event, Describe):
            session.describe(event.prompt)
        else:
            session = session.branch(event.seed, event.blocks)


def _block(session: Session, event: Play) -> UInt8[np.ndarray, "N H W 3"]:
    """In a step of as many sessions as then: whose the others are doesn't matter, how many does."""
    sessions = [session if row == event.row else session.branch() for row in range(event.rows)]
    return Session.together(sessions, [event.actions] * event.rows)[event.row]
