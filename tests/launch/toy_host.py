"""`launch.train` in several processes; stage `vae` is one that compiles in a second.

    python -m tests.launch.toy_host PROCESSES FOLDER --config=tests/launch/toy_config.py --workdir=WORKDIR

They are forks of one, which saves imports. In FOLDER process i has i.pid, i.txt (what it says) and i.status (when it
has ended). TOY_PAUSE: seconds before each batch. TOY_UNREADABLE="i,n": process i can't read its batch n.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np

from launch import cli, train
from relic_jax.data import loader
from relic_jax.errors import InputError
from relic_jax.parallel import watch
from relic_jax.parallel.part import WHOLE
from relic_jax.train import collapse, run
from tests.train.toy import Toy


class Source:
    """Regression problems, a row each."""

    def __len__(self):
        return 50

    def __getitem__(self, index):
        x = np.random.default_rng(int(index)).normal(size=16).astype(np.float32)
        return {"x": x, "y": np.sin(x[:1])}


class ToyOnHosts(Toy):
    """Weights are divided, rows are read by Grain."""

    axes = {"hidden": {"w": ("embed", "mlp"), "b": ("mlp",)}, "out": {"w": ("embed", None)}, "mean": (None,)}

    def batches(self, seed, part=WHOLE):
        return Slow(loader.endless(Source(), None, 8, seed, 0, part))


class Slow:
    def __init__(self, batches):
        self.batches, self.count = batches, 0
        self.get_state, self.set_state = batches.get_state, batches.set_state
        self.unreadable = os.environ.get("TOY_UNREADABLE")

    def __next__(self):
        time.sleep(float(os.environ.get("TOY_PAUSE", 0)))
        if self.unreadable == f"{os.environ.get('PROCESS_ID')},{self.count}":
            raise InputError("clip 7 is unreadable")
        self.count += 1
        return next(self.batches)


def main():
    make = run.make
    run.make = lambda cfg: ToyOnHosts(cfg) if cfg.stage == "vae" else make(cfg)
    collapse.LIMITS = dict.fromkeys(collapse.LIMITS, (0.0, np.inf))  # a student of random weights is unlike any clip
    with watch.failing_ends():
        cli.run(train.main)


def fork(count, folder):
    """Runs `main` in `count` processes; arguments in which {i} stands get the number of the process."""
    running = {}
    for index in range(count):
        pid = os.fork()
        if pid == 0:
            said = os.open(folder / f"{index}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(said, 1)
            os.dup2(said, 2)
            os.environ |= {"NUM_PROCESSES": str(count), "PROCESS_ID": str(index)}
            sys.argv[:] = [argument.replace("{i}", str(index)) for argument in sys.argv]
            return main()
        (folder / f"{index}.pid").write_text(str(pid))
        running[pid] = index
    while running:
        pid, status = os.wait()
        (folder / f"{running.pop(pid)}.status").write_text(str(os.waitstatus_to_exitcode(status)))


if __name__ == "__main__":
    count, folder = sys.argv[1:3]
    del sys.argv[1:3]
    fork(int(count), Path(folder))
