"""The compiler's account of a rollout's gradient: replayed, its memory doesn't grow with the number of blocks."""

import jax
import pytest

from launch import bench_replay
from relic_jax.errors import InputError
from tests.parallel.meshes import untyped
from tests.train.encoded import model

LENGTHS = [2, 20]


@pytest.fixture(scope="module")
def found():
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)  # LLVM's, which have no part in memory
    with untyped():
        yield bench_replay.measure(model(), LENGTHS)
    jax.config.update("jax_disable_most_optimizations", before)


def test_replay_is_flat_and_the_monolithic_gradient_grows(found):
    replay, monolithic = found["replay"], found["monolithic"]
    assert 0 < replay[1] <= 1.1 * replay[0]
    each = (monolithic[1] - monolithic[0]) / (LENGTHS[1] - LENGTHS[0])
    assert each > 0.1 * replay[0]  # ten further blocks cost more than all that replay needs


def test_figures_table_and_plot(found, tmp_path):
    figures = bench_replay.figures(LENGTHS, found)
    assert figures["replay_temp_bytes.20"] == found["replay"][1]
    assert figures["monolithic_growth"] == found["monolithic"][1] / found["monolithic"][0]
    lines = bench_replay.table(model(), LENGTHS, found, "cpu").split("\n")
    assert lines[1].split() == ["blocks", "seconds", "replay", "monolithic"]
    assert [line.split()[:2] for line in lines[2:]] == [["2", "1"], ["20", "10"]]
    bench_replay.plot(str(tmp_path / "plot.png"), "a title", LENGTHS, found)
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_unknown_device():
    with pytest.raises(InputError, match="device 'h900' is not one of"):
        bench_replay.measure(model(), LENGTHS, "h900")
