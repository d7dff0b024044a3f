"""Memory, interruption, precision and sharding of a conversion."""

import dataclasses
import json
import os
import subprocess
import sys

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from relic_jax.config import DiTConfig
from relic_jax.models import module, weights
from weights_convert import store
from weights_convert.table import expand
from weights_convert.tables import MODELS
from weights_convert.to_relic import to_relic
from weights_convert.to_torch import to_torch

CFG = DiTConfig(dim=32, ffn_dim=48, heads=2, layers=3, text_len=8, text_dim=16, cond_dim=8, freq_dim=16)
MODEL = dataclasses.replace(MODELS["wan-t2v-1.3b"], config=CFG)
# 300 MB; the largest tensor is a 20th of a shard, as in the 14B model's files a 35th.
LARGE = dataclasses.replace(CFG, dim=448, ffn_dim=1792, layers=24)
ENVIRONMENT = os.environ | {"JAX_PLATFORMS": "cpu"}


def write_source(folder, cfg=CFG, files=3, dtype=np.float32, layout="wan"):
    """Random weights in Wan's layout, sharded, a layer's tensors spread over the files as they come."""
    rng = np.random.default_rng(0)
    rows = MODEL.layouts[layout].rows(cfg)
    tensors = [t for t in expand(rows, module.abstract(MODEL.module, cfg)) if t.row.initial is None]
    folder.mkdir()
    places = {}
    for i in range(files):
        file = f"diffusion_pytorch_model-{i + 1:05d}-of-{files:05d}.safetensors"
        state = {t.source: rng.standard_normal(t.shape, np.float32).astype(dtype) for t in tensors[i::files]}
        safetensors.numpy.save_file(state, folder / file)
        places |= dict.fromkeys(state, file)
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return folder


def read_source(folder):
    return {k: v for file in folder.glob("*.safetensors") for k, v in safetensors.numpy.load_file(file).items()}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_source(tmp_path_factory.mktemp("source") / "wan")


_MEASURE = """
import dataclasses, sys
from pathlib import Path
from tests.weights_convert import test_streaming as t
small, large, shard, top = (Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
model = dataclasses.replace(t.MODEL, config=t.LARGE)
def memory(what):  # mapped files are in it
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(what))
def growth(work):
    start = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    work()
    print(memory("VmHWM") - start)
t.to_relic("m", small, top / "small", model=t.MODEL, verify=True)  # libraries, thread pools
t.to_torch(top / "small", top / "small-back", model=t.MODEL)
growth(lambda: t.to_relic("m", large, top / "large", model=model, verify=True))
growth(lambda: t.to_torch(top / "large", top / "back", model=model, shard_bytes=shard))
"""


def test_memory_is_at_most_twice_the_largest_shard(source, tmp_path):
    large = write_source(tmp_path / "wan", LARGE, files=5)
    shard = max(file.stat().st_size for file in large.glob("*.safetensors"))
    total = sum(file.stat().st_size for file in large.glob("*.safetensors"))
    arguments = [sys.executable, "-c", _MEASURE, source, large, str(shard), tmp_path]
    done = subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    print(shard / 1e6, [int(x) / 1e6 for x in done.stdout.split()])
    there, back = (int(words) for words in done.stdout.split())
    assert total > 4 * shard
    assert 0 < there <= 2 * shard
    assert 0 < back <= 2 * shard
