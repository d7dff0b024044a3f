"""Memory, interruption and sharding of a conversion."""

import pytest

from tests.weights_convert.sources import LARGE, MODEL, extras, leaves_of, read_source, run, write_source
from weights_convert import store
from weights_convert.to_relic import WEIGHTS, to_relic


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_source(tmp_path_factory.mktemp("source") / "wan")


_MEASURE = """
import dataclasses, sys
from pathlib import Path
from tests.weights_convert.sources import LARGE, MODEL
from weights_convert.to_relic import to_relic
from weights_convert.to_torch import to_torch
small, large, top, shard = *map(Path, sys.argv[1:4]), int(sys.argv[4])
model = dataclasses.replace(MODEL, config=LARGE)
def memory(what):  # mapped files are in it
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(what))
def growth(work):
    start = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    work()
    print(memory("VmHWM") - start)
to_relic("m", small, top / "small", model=MODEL, verify=True)  # libraries, thread pools
to_torch(top / "small", top / "small-back", model=MODEL)
growth(lambda: to_relic("m", large, top / "large", model=model, verify=True))
growth(lambda: to_torch(top / "large", top / "back", model=model, shard_bytes=shard))
"""


def test_memory_is_at_most_twice_the_largest_shard(source, tmp_path):
    large = write_source(tmp_path / "wan", LARGE, files=5)
    shard = max(file.stat().st_size for file in large.glob("*.safetensors"))
    total = sum(file.stat().st_size for file in large.glob("*.safetensors"))
    there, back = map(int, run(_MEASURE, source, large, tmp_path, shard).split())
    assert total > 4 * shard
    assert 0 < there <= 2 * shard
    assert 0 < back <= 2 * shard


class Stopped(KeyboardInterrupt):
    pass


def stop_after(monkeypatch, count):
    """Ctrl-C after so many tensors; returns the list of those written."""
    written, write = [], store.Writer.write

    def counted(self, name, shape, index, value):
        if len(written) == count:
            raise Stopped
        written.append((name, index))
        write(self, name, shape, index, value)

    monkeypatch.setattr(store.Writer, "write", counted)
    return written


def test_an_interrupted_conversion_goes_on_where_it_stopped(source, tmp_path, monkeypatch):
    whole, dst = tmp_path / "whole", tmp_path / "dst"
    to_relic("m", source, whole, model=MODEL)
    with monkeypatch.context() as patch:
        first = stop_after(patch, 50)
        with pytest.raises(Stopped):
            to_relic("m", source, dst, model=MODEL)
    assert len(first) == 50 and not dst.exists()
    with monkeypatch.context() as patch:
        second = stop_after(patch, None)
        to_relic("m", source, dst, model=MODEL, verify=True)
    initialised = {(t.target, t.index) for t in extras()}
    assert not (set(first) & set(second)) - initialised
    assert len(set(first) | set(second)) == len(extras()) + len(read_source(source))
    a, b = leaves_of(whole), leaves_of(dst)
    assert all((a[name] == b[name]).all() for name in a)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dst", "whole"]


def test_a_leftover_of_other_weights_is_begun_anew(source, tmp_path, monkeypatch):
    dst = tmp_path / "dst"
    with monkeypatch.context() as patch:
        stop_after(patch, 50)
        with pytest.raises(Stopped):
            to_relic("m", source, dst, model=MODEL)
    with monkeypatch.context() as patch:
        written = stop_after(patch, None)
        to_relic("m", source, dst, model=MODEL, dtype="bfloat16", verify=True)
    assert len(written) == len(extras()) + len(read_source(source))


_SHARDED = """
import sys
from pathlib import Path
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from relic_jax.models import weights
from tests.weights_convert.sources import MODEL
from weights_convert.store import load
mesh = jax.make_mesh((4,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
leaves = MODEL.leaves()
def place(x):
    axis = next((i for i in range(x.ndim - 1, 0, -1) if x.shape[i] % 4 == 0), None)
    return NamedSharding(mesh, PartitionSpec(*["model" if i == axis else None for i in range(x.ndim)]))
params = load(Path(sys.argv[1]), leaves, jax.tree.map(place, leaves))
plain = load(Path(sys.argv[1]), leaves)
for (name, x), (_, y) in zip(weights.leaves(params), weights.leaves(plain)):
    assert x.sharding == place(x) and np.array_equal(x, y), name
kernel = params["blocks"]["ffn"]["fc1"]["kernel"]
assert {s.data.shape for s in kernel.addressable_shards} == {(3, 32, 12)}
"""


def test_loads_with_any_sharding(source, tmp_path):
    to_relic("m", source, tmp_path / "dst", model=MODEL)
    run(_SHARDED, tmp_path / "dst" / WEIGHTS, XLA_FLAGS="--xla_force_host_platform_device_count=4")


def test_a_chunk_is_never_more_than_a_layer_nor_than_the_limit(monkeypatch):
    monkeypatch.setattr(store, "CHUNK_BYTES", 1 << 10)
    assert store.chunks((3, 8, 16), 4, stacked=True) == [1, 8, 16]
    assert store.chunks((3, 30, 64), 4, stacked=True) == [1, 15, 16]
    assert store.chunks((3, 8), 4, stacked=False) == [3, 8]
