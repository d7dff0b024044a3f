"""Makes the shards of a data set in several processes, one a core: XLA's own threads would slow each other."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import tensorflow_datasets as tfds
import tqdm

from relic_jax.data import shards
from relic_jax.parallel.part import WHOLE, Part

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


@runtime_checkable
class Job(Protocol):
    """What makes the records of a split; goes to each process, so it must pickle.

    `made_from` says in JSON what they depend on: a split made from anything else is refused.
    """

    made_from: Any
    features: tfds.features.FeaturesDict
    description: str

    def write(self, split: shards.Split, shard: int, done: Callable[[], None]) -> None:
        """Makes and writes one shard; calls `done` after each record."""


def write(split: shards.Split, job: Job, workers: int, part: Part = WHOLE) -> int:
    """Makes what is missing of a split, with a progress bar, and the data set's metadata once nothing is.

    Args:
      workers: processes; with 1 the work is done in this one.
      part: which of the shards, where several hosts share the work. They need not know of each other.

    Returns:
      How many records were made; those that were there already are not counted.

    Raises:
      InputError: see `shards.claim`.
    """
    shards.claim(split, job.made_from)
    missing = split.missing(part)
    total = sum(len(split.shards[i]) for i in missing)
    records = sum(len(shard) for shard in split.shards[part.index :: part.count])
    with tqdm.tqdm(total=records, initial=records - total, unit="clip", desc=split.name) as bar:
        if workers == 1:
            for shard in missing:
                job.write(split, shard, bar.update)
        else:
            _spread(split, job, missing, workers, bar)
    if not split.missing():
        shards.finish(split.directory, job.features, job.description)
    return total


def _spread(split: shards.Split, job: Job, missing: list[int], workers: int, bar: tqdm.tqdm) -> None:
    context = multiprocessing.get_context("spawn")
    made, turn = context.Value("i", 0), context.Value("i", 0)
    before = bar.n
    with _environment(_ENVIRONMENT):
        pool = futures.ProcessPoolExecutor(workers, context, _start, (made, turn, cores()))
        running = {pool.submit(_write, split, job, shard) for shard in missing}
    try:
        while running:
            finished, running = futures.wait(running, _POLL_SECONDS, futures.FIRST_EXCEPTION)
            bar.update(before + made.value - bar.n)
            for future in finished:
                future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start(made: Any, turn: Any, cores: list[int]) -> None:
    global _made
    _made = made
    with turn.get_lock():
        core = cores[turn.value % len(cores)]
        turn.value += 1
    os.sched_setaffinity(0, {core})


def _write(split: shards.Split, job: Job, shard: int) -> None:
    def done() -> None:
        with _made.get_lock():
            _made.value += 1

    job.write(split, shard, done)


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
