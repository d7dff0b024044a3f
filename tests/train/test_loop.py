import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from relic_jax.config import ConfigError
from relic_jax.train import checkpoint, loop, metrics, optimizer
from relic_jax.train.host import Prefetch
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
    result = loop.train(config(), Toy(), workdir)
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
    assert loop.train(config(), Toy(), tmp_path)["steps"] == 40
    assert_same_run(tmp_path, uninterrupted)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_and_resumes(uninterrupted, tmp_path, number):
    def interrupt(index: int) -> None:
        if index == 16:
            os.kill(os.getpid(), number)
        time.sleep(0.02)

    before = signal.getsignal(number)
    result = loop.train(config(), Toy(before=interrupt), tmp_path)
    assert signal.getsignal(number) is before
    step = checkpoint.read(str(tmp_path))[0]
    assert result["signal"] == number and result["steps"] == step == metrics.read(tmp_path)[-1]["step"]
    assert 10 < step < 30
    assert loop.train(config(), Toy(), tmp_path)["steps"] == 40
    assert_same_run(tmp_path, uninterrupted)


def test_finished_run_stays_as_it_is(uninterrupted):
    before = (uninterrupted / "metrics.jsonl").read_bytes()
    result = loop.train(config(), Toy(), uninterrupted)
    assert result["steps"] == 40 and result["signal"] == 0
    assert (uninterrupted / "metrics.jsonl").read_bytes() == before


def test_other_configuration_is_refused(uninterrupted):
    with pytest.raises(ConfigError, match=r"config\.learning_rate=0\.01, this one has config\.learning_rate=0\.02"):
        loop.train(config(learning_rate=2e-2), Toy(), uninterrupted)


def test_starts_from_another_runs_ema(uninterrupted, tmp_path):
    cfg = config(init_from=str(uninterrupted), learning_rate=1e-12, steps=5, warmup=0)
    loop.train(cfg, Toy(), tmp_path)
    for got, want in zip(leaves_of(tmp_path, "params"), leaves_of(uninterrupted, "ema"), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-9)


def test_parts_of_another_runs_weights_start_anew(uninterrupted, tmp_path):
    cfg = config(init_from=str(uninterrupted), fresh=("hidden.w", "out"), learning_rate=1e-12, steps=5, warmup=0)
    loop.train(cfg, Toy(), tmp_path)
    got, before = checkpoint.read(str(tmp_path), "params")[1], checkpoint.read(str(uninterrupted), "ema")[1]
    np.testing.assert_allclose(got["hidden"]["b"], before["hidden"]["b"], atol=1e-9)
    for part, weights in ((got["hidden"]["w"], before["hidden"]["w"]), (got["out"]["w"], before["out"]["w"])):
        assert np.abs(np.asarray(part) - np.asarray(weights)).max() > 0.01


@pytest.mark.parametrize(
    ("fresh", "init_from", "message"),
    [
        (("hid",), True, "config.fresh has 'hid': no weights are called so; there are hidden, mean, out"),
        (("hidden",), False, "needs config.init_from"),
    ],
)
def test_parts_that_cannot_start_anew(uninterrupted, tmp_path, fresh, init_from, message):
    with pytest.raises(ConfigError, match=message):
        loop.train(config(init_from=str(uninterrupted) if init_from else "", fresh=fresh), Toy(), tmp_path)


def test_not_finite_loss_stops_and_keeps_the_batch(tmp_path):
    with pytest.raises(FloatingPointError, match="at step 13 the loss is nan"):
        loop.train(config(), Toy(broken_at=12), tmp_path)
    assert np.isnan(np.load(tmp_path / "not_finite_0000013.npz")["x"][0, 0])
    assert checkpoint.read(str(tmp_path))[0] == 10


def test_step_equals_optax_by_hand():
    cfg, toy = config(warmup=0, schedule="constant", clip=0.1, ema=0.0), Toy()
    params, key = toy.init(jax.random.key(1)), jax.random.key(2)
    batch = next(ToyBatches(3))
    reference = optax.adamw(1e-2, 0.9, 0.99, weight_decay=0.01, mask=toy.decay_mask(params))
    gradient = jax.grad(lambda p: toy.loss(p, batch, jax.random.fold_in(key, 0))[0])(params)
    norm = optax.tree.norm(gradient)
    assert norm > 0.1
    updates, _ = reference.update(jax.tree.map(lambda g: g * 0.1 / norm, gradient), reference.init(params), params)
    expected = optax.apply_updates(params, updates)
    make = optimizer.make(cfg, toy.decay_mask(params))
    state, scalars = loop.make_step(toy, make, cfg, key)(loop.start(params, make), batch)
    for got, want in zip(jax.tree.leaves(state.params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-6)
    np.testing.assert_allclose(scalars["gradient_norm"], norm, rtol=1e-5)


def test_step_donates_its_state():
    cfg, toy = config(), Toy()
    make = optimizer.make(cfg, toy.decay_mask(toy.init(jax.random.key(0))))
    state = loop.start(toy.init(jax.random.key(0)), make)
    loop.make_step(toy, make, cfg, jax.random.key(0))(state, next(ToyBatches(0)))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))


def test_schedule_and_average():
    rate = optimizer.schedule(config(warmup=4, steps=44, learning_rate=1.0))
    np.testing.assert_allclose([rate(i) for i in range(4)], [0.25, 0.5, 0.75, 1.0], rtol=1e-6)
    np.testing.assert_allclose(rate(23), 0.5, atol=1e-6)
    np.testing.assert_allclose(rate(43), 0.0, atol=1e-6)
    assert optimizer.schedule(config(warmup=0, schedule="constant"))(0) == pytest.approx(1e-2)
    one, two = {"a": jnp.ones(2)}, {"a": jnp.full(2, 2.0)}
    np.testing.assert_allclose(optimizer.average(one, two, jnp.int32(0), 0.99)["a"], 1.9, rtol=1e-6)
    np.testing.assert_allclose(optimizer.average(one, two, jnp.int32(10**6), 0.99)["a"], 1.01, rtol=1e-6)


def test_decay_only_where_there_are_matrices():
    axes = {"blocks": {"w": ("layers", "embed", "mlp"), "b": ("layers", "mlp")}, "w": ("a", "b"), "b": ("a",)}
    assert optimizer.matrices(axes) == {"blocks": {"w": True, "b": False}, "w": True, "b": False}
    assert Toy().decay_mask(jax.eval_shape(Toy().init, jax.random.key(0)))["hidden"] == {"w": True, "b": False}


def test_muon_moves_every_matrix_along_all_its_directions_alike():
    cfg = config(optimizer="muon", warmup=0, schedule="constant", weight_decay=0.0, learning_rate=1e-2)
    rng = np.random.default_rng(0)
    # One direction's gradient is a thousand times the others': Adam's update would follow it, Muon's does not.
    steep = np.diag([1e3, 1.0, 1.0, 1.0])
    params = {
        "linear": {"kernel": jnp.zeros((4, 4)), "bias": jnp.zeros((4,))},
        "blocks": {"linear": {"kernel": jnp.zeros((2, 4, 4))}},
        "conv": {"kernel": jnp.zeros((3, 3, 4, 8))},
        "modulation": jnp.zeros((2, 6, 4)),
    }
    gradient = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), params)
    gradient["linear"]["kernel"] = jnp.asarray(steep, jnp.float32)
    gradient["blocks"]["linear"]["kernel"] = jnp.asarray(np.stack([steep, 1e-3 * steep]), jnp.float32)
    make = optimizer.make(cfg, jax.tree.map(lambda leaf: leaf.ndim > 1, params))
    update, _ = make.update(gradient, make.init(params), params)

    def spread(matrix):
        values = np.linalg.svd(np.asarray(matrix), compute_uv=False)
        return values.max() / values.min()

    assert spread(update["linear"]["kernel"]) < 2
    assert all(spread(layer) < 2 for layer in update["blocks"]["linear"]["kernel"])
    assert spread(update["conv"]["kernel"].reshape(-1, 8)) < 2
    size = np.abs(update["modulation"])  # Adam's first step: as large for every number
    assert size.max() / size.min() < 1.01


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


class TwoTrees(Toy):
    """A stage with a trainer of its own: it counts in `extra`, and measures something at every third step."""

    def trainer(self, key):
        cfg = config()
        trainer = loop.supervised(cfg, Toy(), key)

        def start(params):
            return dataclasses.replace(trainer.start(params), extra={"count": jnp.zeros(())})

        def step(state, batch):
            after, scalars = trainer.step(dataclasses.replace(state, extra=None), batch)
            count = state.extra["count"] + 1
            scalars["third"] = jnp.where(count % 3 == 0, count, jnp.nan)
            return dataclasses.replace(after, extra={"count": count}), scalars

        return loop.Trainer(trainer.optimizer, start, step)

    def check(self, means):
        if means.get("third", 0) > 20:
            raise ArithmeticError(f"third is {means['third']}")


def test_stage_with_its_own_trainer_resumes_and_can_stop_the_run(tmp_path):
    loop.train(config(steps=20), TwoTrees(), tmp_path)
    rows = metrics.read(tmp_path)
    assert [row["third"] for row in rows if "third" in row] == [3, 6, 9, 12, 15, 18]
    stored = checkpoint.Checkpoints(tmp_path, config(steps=20), keep=2)
    trainer, key = TwoTrees().trainer(jax.random.key(0)), jax.random.key(0)
    abstract = jax.eval_shape(lambda: trainer.start(Toy().init(key)).trees())
    assert stored.restore(abstract)[0]["extra"]["count"] == 20
    stored.close()
    (tmp_path / "config.json").write_text((tmp_path / "config.json").read_text().replace('"steps": 20', '"steps": 40'))
    with pytest.raises(ArithmeticError, match="third is 2"):
        loop.train(config(), TwoTrees(), tmp_path)
    rows = metrics.read(tmp_path)
    assert [row["third"] for row in rows if "third" in row][-1] >= 21  # it went on counting


def test_what_is_not_measured_is_left_out_but_a_loss_never():
    rows = {"loss": float("nan"), "gradient_norm": 1.0, "third": float("nan"), "fourth": 4.0}
    assert set(loop._measured(rows)) == {"loss", "gradient_norm", "fourth"}
