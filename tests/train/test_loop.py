import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from relic_jax import rng
from relic_jax.config import ConfigError
from relic_jax.train import abstract, checkpoint, loop, metrics
from relic_jax.train.host import Prefetch
from relic_jax.train.run import State
from tests.train.toy import Toy, ToyBatches, config


def leaves_of(workdir: Path, which: str) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(checkpoint.read(str(workdir), which)[1])]


def wait_for_checkpoint(workdir: Path, step: int, timeout_s: float = 300) -> None:
    until = time.monotonic() + timeout_s
    while not (workdir / "checkpoints" / str(step)).is_dir():
        assert time.monotonic() < until, f"no checkpoint of step {step} after {timeout_s} s"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("uninterrupted")
    result = loop.train(Toy(), workdir)
    assert result["steps"] == 40 and result["signal"] == 0
    return workdir


def assert_same_run(workdir: Path, expected: Path) -> None:
    assert (workdir / "metrics.jsonl").read_bytes() == (expected / "metrics.jsonl").read_bytes()
    for which in ("params", "ema"):
        for got, want in zip(leaves_of(workdir, which), leaves_of(expected, which), strict=True):
            np.testing.assert_array_equal(got, want)


def test_learns_and_writes_everything(uninterrupted):
    rows = [row for row in metrics.read(uninterrupted) if "loss" in row]
    assert [row["step"] for row in rows] == list(range(1, 41))
    assert np.mean([row["loss"] for row in rows[-10:]]) < 0.75 * np.mean([row["loss"] for row in rows[:5]])
    assert [row["step"] for row in metrics.read(uninterrupted) if "norm" in row] == [15, 30, 40]
    assert sorted(p.name for p in (uninterrupted / "samples").iterdir()) == [
        "grid_0000015.png", "grid_0000030.png", "grid_0000040.png"
    ]  # fmt: skip
    assert Image.open(uninterrupted / "samples" / "grid_0000015.png").size == (6, 4)
    assert any((uninterrupted / "tensorboard").iterdir())
    assert sorted(int(p.name) for p in (uninterrupted / "checkpoints").iterdir()) == [30, 40]


def test_finish_is_in_the_last_checkpoint(uninterrupted):
    assert checkpoint.read(str(uninterrupted))[1]["mean"] == 3.0


def test_killed_and_resumed_equals_uninterrupted(uninterrupted, tmp_path):
    root, environment = Path(__file__).parents[2], os.environ | {"JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen([sys.executable, "-m", "tests.train.toy", str(tmp_path)], cwd=root, env=environment)
    wait_for_checkpoint(tmp_path, 20)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    stopped_at = checkpoint.read(str(tmp_path))[0]
    assert 20 <= stopped_at < 40
    with (tmp_path / "metrics.jsonl").open("a") as file:  # what a kill may leave: steps beyond, half a line
        file.write('{"step": 39, "loss": 1.0}\n{"step": 4')
    assert loop.train(Toy(), tmp_path)["steps"] == 40
    assert_same_run(tmp_path, uninterrupted)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_and_resumes(uninterrupted, tmp_path, number):
    def interrupt(index: int) -> None:
        if index == 16:
            os.kill(os.getpid(), number)
        time.sleep(0.02)

    before = signal.getsignal(number)
    result = loop.train(Toy(before=interrupt), tmp_path)
    assert signal.getsignal(number) is before
    step = checkpoint.read(str(tmp_path))[0]
    assert result["signal"] == number and result["steps"] == step == metrics.read(tmp_path)[-1]["step"]
    assert 10 < step < 30
    assert loop.train(Toy(), tmp_path)["steps"] == 40
    assert_same_run(tmp_path, uninterrupted)


def test_finished_run_stays_as_it_is(uninterrupted):
    before = (uninterrupted / "metrics.jsonl").read_bytes()
    result = loop.train(Toy(), uninterrupted)
    assert result["steps"] == 40 and result["signal"] == 0
    assert (uninterrupted / "metrics.jsonl").read_bytes() == before


def test_other_configuration_is_refused(uninterrupted):
    with pytest.raises(ConfigError, match=r"config\.optimizer\.learning_rate=0\.01, this one has .*=0\.02"):
        loop.train(Toy(config({"learning_rate": 2e-2})), uninterrupted)


def test_starts_from_another_runs_ema(uninterrupted, tmp_path):
    cfg = config({"learning_rate": 1e-12, "warmup": 0}, init_from=str(uninterrupted), steps=5)
    loop.train(Toy(cfg), tmp_path)
    for got, want in zip(leaves_of(tmp_path, "params"), leaves_of(uninterrupted, "ema"), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-9)


def test_not_finite_loss_stops_and_keeps_the_batch(tmp_path):
    with pytest.raises(FloatingPointError, match="at step 13 the loss is nan"):
        loop.train(Toy(broken_at=12), tmp_path)
    assert np.isnan(np.load(tmp_path / "not_finite_0000013.npz")["x"][0, 0])
    assert checkpoint.read(str(tmp_path))[0] == 10


def test_step_equals_optax_by_hand():
    toy = Toy(config({"warmup": 0, "schedule": "constant", "clip": 0.1}, ema=0.0))
    params, key = toy.weights(jax.random.key(1)), jax.random.key(2)
    batch = next(ToyBatches(3))
    matrices = {"hidden": {"w": True, "b": False}, "out": {"w": True}, "mean": False}
    reference = optax.adamw(1e-2, 0.9, 0.99, weight_decay=0.01, mask=matrices)
    gradient = jax.grad(lambda p: toy.loss(p, batch, rng.streams(key, 0))[0])(params)
    norm = optax.tree.norm(gradient)
    assert norm > 0.1
    updates, _ = reference.update(jax.tree.map(lambda g: g * 0.1 / norm, gradient), reference.init(params), params)
    expected = optax.apply_updates(params, updates)
    state, scalars = loop.make_step(toy, key)(toy.init(params, {}), {}, batch)
    for got, want in zip(jax.tree.leaves(state.params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-6)
    np.testing.assert_allclose(scalars["gradient_norm"], norm, rtol=1e-5)


def test_step_donates_its_state():
    toy = Toy()
    state = toy.init(toy.weights(jax.random.key(0)), {})
    loop.make_step(toy, jax.random.key(0))(state, {}, next(ToyBatches(0)))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))


def test_prefetch_state_is_that_of_the_batch_handed_out():
    with Prefetch(ToyBatches(0), depth=3) as feed:
        assert feed.get_state() == {"index": 0}
        for _ in range(5):
            last = next(feed)
        assert feed.get_state() == {"index": 5}
    again = ToyBatches(0)
    again.set_state({"index": 4})
    np.testing.assert_array_equal(next(again)["x"], last["x"])


def test_prefetch_raises_the_data_error():
    class Failing(ToyBatches):
        def __next__(self):
            raise OSError("clip 7 is unreadable")

    with Prefetch(Failing(0)) as feed, pytest.raises(OSError, match="clip 7"):
        next(feed)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Counting(State):
    critic: Any


class TwoTrees(Toy):
    """A stage whose state has a tree of its own: it counts, and measures something at every third step."""

    def abstract_state(self):
        plain = super().abstract_state()
        return Counting(
            plain.params, plain.ema, plain.opt_state, plain.step, {"count": abstract.Leaf((), "float32", ())}
        )

    def init(self, params, frozen):
        plain = super().init(params, frozen)
        return Counting(plain.params, plain.ema, plain.opt_state, plain.step, {"count": jnp.zeros(())})

    def step(self, state, frozen, batch, rng):
        state, scalars = super().step(state, frozen, batch, rng)
        count = state.critic["count"] + 1
        scalars["third"] = jnp.where(count % 3 == 0, count, jnp.nan)
        return dataclasses.replace(state, critic={"count": count}), scalars

    def check(self, means):
        if means.get("third", 0) > 20:
            raise ArithmeticError(f"third is {means['third']}")


def test_a_state_with_more_trees_resumes_and_a_check_can_stop_the_run(tmp_path):
    loop.train(TwoTrees(config(steps=20)), tmp_path)
    rows = metrics.read(tmp_path)
    assert [row["third"] for row in rows if "third" in row] == [3, 6, 9, 12, 15, 18]
    stored = checkpoint.Checkpoints(tmp_path, config(steps=20), keep=2)
    assert loop.restore(TwoTrees(config(steps=20)), stored, None)[0].critic["count"] == 20
    stored.close()
    (tmp_path / "config.json").write_text((tmp_path / "config.json").read_text().replace('"steps": 20', '"steps": 40'))
    with pytest.raises(ArithmeticError, match="third is 2"):
        loop.train(TwoTrees(), tmp_path)
    rows = metrics.read(tmp_path)
    assert [row["third"] for row in rows if "third" in row][-1] >= 21  # it went on counting


def test_what_is_not_measured_is_left_out_but_a_loss_never():
    rows = {"loss": float("nan"), "gradient_norm": 1.0, "third": float("nan"), "fourth": 4.0}
    assert set(loop.measured(rows)) == {"loss", "gradient_norm", "fourth"}
