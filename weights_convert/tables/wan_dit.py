"""Wan 2.1's text-to-video transformer, in the names of Wan's own files and of diffusers' `WanTransformer3DModel`.

The causal descendants of Self-Forcing and CausVid keep Wan's names inside a container (`source.unwrap`).
RELIC's own leaves have names of ours, the same in both layouts:

  relic.conditioner.{action,pose}.{fc1,fc2}.{weight,bias}
  relic.blocks.<layer>.{action,pose}.proj.{weight,bias}

with weights as torch.nn.Linear has them. They are written only when they were trained: while all of them are
zero the model is Wan, and so is the file.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np

from relic_jax.config import DiTConfig
from weights_convert.table import LINEAR, SAME, SQUEEZE, Row, Shape, Transform

# One name a row: ours, Wan's, diffusers'. Those of a layer begin with `blocks`.
_LINEAR = (
    ("text_embedding.fc1", "text_embedding.0", "condition_embedder.text_embedder.linear_1"),
    ("text_embedding.fc2", "text_embedding.2", "condition_embedder.text_embedder.linear_2"),
    ("time_embedding.fc1", "time_embedding.0", "condition_embedder.time_embedder.linear_1"),
    ("time_embedding.fc2", "time_embedding.2", "condition_embedder.time_embedder.linear_2"),
    ("time_projection", "time_projection.1", "condition_embedder.time_proj"),
    ("head", "head.head", "proj_out"),
    ("blocks.self_attention.q", "blocks.{i}.self_attn.q", "blocks.{i}.attn1.to_q"),
    ("blocks.self_attention.k", "blocks.{i}.self_attn.k", "blocks.{i}.attn1.to_k"),
    ("blocks.self_attention.v", "blocks.{i}.self_attn.v", "blocks.{i}.attn1.to_v"),
    ("blocks.self_attention.o", "blocks.{i}.self_attn.o", "blocks.{i}.attn1.to_out.0"),
    ("blocks.cross_attention.q", "blocks.{i}.cross_attn.q", "blocks.{i}.attn2.to_q"),
    ("blocks.cross_attention.k", "blocks.{i}.cross_attn.k", "blocks.{i}.attn2.to_k"),
    ("blocks.cross_attention.v", "blocks.{i}.cross_attn.v", "blocks.{i}.attn2.to_v"),
    ("blocks.cross_attention.o", "blocks.{i}.cross_attn.o", "blocks.{i}.attn2.to_out.0"),
    ("blocks.ffn.fc1", "blocks.{i}.ffn.0", "blocks.{i}.ffn.net.0.proj"),
    ("blocks.ffn.fc2", "blocks.{i}.ffn.2", "blocks.{i}.ffn.net.2"),
)
_VECTORS = (
    ("blocks.self_attention.norm_q.scale", "blocks.{i}.self_attn.norm_q.weight", "blocks.{i}.attn1.norm_q.weight"),
    ("blocks.self_attention.norm_k.scale", "blocks.{i}.self_attn.norm_k.weight", "blocks.{i}.attn1.norm_k.weight"),
    ("blocks.cross_attention.norm_q.scale", "blocks.{i}.cross_attn.norm_q.weight", "blocks.{i}.attn2.norm_q.weight"),
    ("blocks.cross_attention.norm_k.scale", "blocks.{i}.cross_attn.norm_k.weight", "blocks.{i}.attn2.norm_k.weight"),
    # Wan counts the norms in the order of their making, diffusers in that of their use.
    ("blocks.norm.scale", "blocks.{i}.norm3.weight", "blocks.{i}.norm2.weight"),
    ("blocks.norm.bias", "blocks.{i}.norm3.bias", "blocks.{i}.norm2.bias"),
    ("patch_embedding.bias", "patch_embedding.bias", "patch_embedding.bias"),
)
_MODULATION = (
    ("blocks.modulation", "blocks.{i}.modulation", "blocks.{i}.scale_shift_table"),
    ("head_modulation", "head.modulation", "scale_shift_table"),
)
_RELIC = (
    ("conditioner.action.fc1", "relic.conditioner.action.fc1"),
    ("conditioner.action.fc2", "relic.conditioner.action.fc2"),
    ("conditioner.pose.fc1", "relic.conditioner.pose.fc1"),
    ("conditioner.pose.fc2", "relic.conditioner.pose.fc2"),
    ("blocks.action.proj", "relic.blocks.{i}.action.proj"),
    ("blocks.pose.proj", "relic.blocks.{i}.pose.proj"),
)


def wan(cfg: DiTConfig) -> list[Row]:
    return _rows(cfg, column=1)


def diffusers(cfg: DiTConfig) -> list[Row]:
    return _rows(cfg, column=2)


def _rows(cfg: DiTConfig, column: int) -> list[Row]:
    rows = [Row("patch_embedding.weight", "patch_embedding.kernel", patches(cfg))]
    for names in _LINEAR:
        rows.append(Row(f"{names[column]}.weight", f"{names[0]}.kernel", LINEAR))
        rows.append(Row(f"{names[column]}.bias", f"{names[0]}.bias"))
    rows += [Row(names[column], names[0]) for names in _VECTORS]
    rows += [Row(names[column], names[0], SQUEEZE) for names in _MODULATION]
    for target, source in _RELIC:
        kernel = np.zeros if target.startswith("blocks") else functools.partial(_xavier, name=target)
        rows.append(Row(f"{source}.weight", f"{target}.kernel", LINEAR, _float32(kernel)))
        rows.append(Row(f"{source}.bias", f"{target}.bias", SAME, _float32(np.zeros)))
    return rows


def patches(cfg: DiTConfig) -> Transform:
    """A convolution [D, C, 1, p, p] to a matrix [p p C, D]; numbers of a token in the order row, column, channel."""
    patch, channels = cfg.patch, cfg.latent_channels
    return Transform(
        lambda x: x.transpose(2, 3, 4, 1, 0).reshape(-1, x.shape[0]),
        lambda x: x.reshape(1, patch, patch, channels, -1).transpose(4, 3, 0, 1, 2),
    )


def _float32(make: Callable[[Shape], np.ndarray]) -> Callable[[Shape], np.ndarray]:
    return lambda shape: make(shape).astype(np.float32)


def _xavier(shape: Shape, name: str) -> np.ndarray:
    """What `layers.Linear` starts with; the seed is the leaf's name, so that converting twice gives the same."""
    bound = math.sqrt(6 / (shape[0] + shape[1]))
    return np.random.default_rng(list(name.encode())).uniform(-bound, bound, shape)


def diffusers_config(cfg: DiTConfig) -> dict[str, object]:
    """config.json of a `WanTransformer3DModel`."""
    return {
        "_class_name": "WanTransformer3DModel",
        "attention_head_dim": cfg.head_dim,
        "cross_attn_norm": True,
        "eps": cfg.eps,
        "ffn_dim": cfg.ffn_dim,
        "freq_dim": cfg.freq_dim,
        "in_channels": cfg.latent_channels,
        "num_attention_heads": cfg.heads,
        "num_layers": cfg.layers,
        "out_channels": cfg.latent_channels,
        "patch_size": [1, cfg.patch, cfg.patch],
        "qk_norm": "rms_norm_across_heads",
        "rope_max_seq_len": 1024,
        "text_dim": cfg.text_dim,
    }


def wan_config(cfg: DiTConfig) -> dict[str, object]:
    """config.json of Wan's own `WanModel`."""
    return {
        "_class_name": "WanModel",
        "dim": cfg.dim,
        "eps": cfg.eps,
        "ffn_dim": cfg.ffn_dim,
        "freq_dim": cfg.freq_dim,
        "in_dim": cfg.latent_channels,
        "model_type": "t2v",
        "num_heads": cfg.heads,
        "num_layers": cfg.layers,
        "out_dim": cfg.latent_channels,
        "text_len": cfg.text_len,
    }
