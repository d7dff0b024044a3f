"""Renders the shards of a world data set in several processes, one a core: XLA's own threads would slow each other."""

import dataclasses
import multiprocessing
import os
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import tqdm

from relic_jax.data import builder, shards

_POLL_SECONDS = 0.2
_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "OMP_NUM_THREADS": "1",
}
_made: Any = None  # in a worker: how many clips all of them have made


def cores() -> list[int]:
    """The cores this process may use."""
    return sorted(os.sched_getaffinity(0))


def write_world(split: shards.Split, recipe: builder.Recipe, workers: int) -> int:
    """Makes what is missing of a split, with a progress bar, and the data set's metadata.

    Returns:
      How many clips were made; those that were there already are not counted.

    Raises:
      InputError: see `shards.claim`.
    """
    shards.claim(split, dataclasses.asdict(recipe))
    missing = split.missing()
    total = sum(len(split.shards[i]) for i in missing)
    context = multiprocessing.get_context("spawn")
    made, turn = context.Value("i", 0), context.Value("i", 0)
    with _environment(_ENVIRONMENT):
        pool = futures.ProcessPoolExecutor(workers, context, _start, (made, turn, cores()))
        running = {pool.submit(_write, split, recipe, shard) for shard in missing}
    try:
        with tqdm.tqdm(total=split.records, initial=split.records - total, unit="clip", desc=split.name) as bar:
            while running:
                finished, running = futures.wait(running, _POLL_SECONDS, futures.FIRST_EXCEPTION)
                bar.update(split.records - total + made.value - bar.n)
                for future in finished:
                    future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    shards.finish(split.directory, builder.features(recipe.height, recipe.width), builder.DESCRIPTION)
    return total


def _start(made: Any, turn: Any, cores: list[int]) -> None:
    global _made
    _made = made
    with turn.get_lock():
        core = cores[turn.value % len(cores)]
        turn.value += 1
    os.sched_setaffinity(0, {core})


def _write(split: shards.Split, recipe: builder.Recipe, shard: int) -> None:
    def done() -> None:
        with _made.get_lock():
            _made.value += 1

    recipe.write(split, shard, done)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Environment variables for processes that are started within."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
