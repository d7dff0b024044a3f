"""A transformer small enough to convert in no time, its published files, and what came of them."""

import dataclasses
import json
import math
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import safetensors.numpy

from relic_jax.config import DiTConfig
from relic_jax.models import weights
from weights_convert import store
from weights_convert.tables import MODELS
from weights_convert.to_relic import WEIGHTS

CFG = DiTConfig(dim=32, ffn_dim=48, heads=2, layers=3, text_len=8, text_dim=16, cond_dim=8, freq_dim=16)
MODEL = dataclasses.replace(MODELS["wan-t2v-1.3b"], config=CFG)
# 300 MB; the largest tensor is a 20th of a shard, as in the 14B model's files a 35th.
LARGE = dataclasses.replace(CFG, dim=448, ffn_dim=1792, layers=24)
ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"JAX_PLATFORMS": "cpu"}


def write_source(folder, cfg=CFG, files=3, dtype=np.float32, layout="wan"):
    """Random weights in Wan's layout, sharded, a layer's tensors spread over the files as they come."""
    rng = np.random.default_rng(0)
    table = dataclasses.replace(MODEL, config=cfg).table(layout)
    tensors = [t for t in table if t.row.initial is None]
    folder.mkdir()
    places = {}
    for i in range(files):
        file = f"diffusion_pytorch_model-{i + 1:05d}-of-{files:05d}.safetensors"
        state = {t.source: rng.standard_normal(t.shape, np.float32).astype(dtype) for t in tensors[i::files]}
        safetensors.numpy.save_file(state, folder / file)
        places |= dict.fromkeys(state, file)
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return folder


def write_hollow(file, name, layout):
    """A file with the names and shapes of a published model and no content."""
    model = MODELS[name]
    header, end = {}, 0
    for tensor in model.table(layout):
        if tensor.row.initial is None:
            start, end = end, end + 2 * math.prod(tensor.shape)
            header[tensor.source] = {"dtype": "BF16", "shape": tensor.shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + end)


def read_source(folder):
    return {k: v for file in folder.glob("*.safetensors") for k, v in safetensors.numpy.load_file(file).items()}


def run(program, *arguments, **environment):
    """The output of a Python program in a process of its own."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def leaves_of(folder, cfg=CFG):
    return dict(weights.leaves(store.load(folder / WEIGHTS, dataclasses.replace(MODEL, config=cfg).leaves())))


def extras():
    return [t for t in MODEL.table("wan") if t.row.initial is not None]
