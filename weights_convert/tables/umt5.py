"""The umT5 encoder, in the names of Wan's file and of transformers' `UMT5EncoderModel`."""

from __future__ import annotations

from relic_jax.config import TextConfig
from weights_convert.table import LINEAR, Row

# Ours, Wan's, transformers'.
_LINEAR = (
    ("blocks.attention.q", "blocks.{i}.attn.q", "encoder.block.{i}.layer.0.SelfAttention.q"),
    ("blocks.attention.k", "blocks.{i}.attn.k", "encoder.block.{i}.layer.0.SelfAttention.k"),
    ("blocks.attention.v", "blocks.{i}.attn.v", "encoder.block.{i}.layer.0.SelfAttention.v"),
    ("blocks.attention.o", "blocks.{i}.attn.o", "encoder.block.{i}.layer.0.SelfAttention.o"),
    ("blocks.ffn.gate", "blocks.{i}.ffn.gate.0", "encoder.block.{i}.layer.1.DenseReluDense.wi_0"),
    ("blocks.ffn.up", "blocks.{i}.ffn.fc1", "encoder.block.{i}.layer.1.DenseReluDense.wi_1"),
    ("blocks.ffn.down", "blocks.{i}.ffn.fc2", "encoder.block.{i}.layer.1.DenseReluDense.wo"),
)
_SAME = (
    ("embedding", "token_embedding", "shared"),
    (
        "blocks.attention.bias",
        "blocks.{i}.pos_embedding.embedding",
        "encoder.block.{i}.layer.0.SelfAttention.relative_attention_bias",
    ),
    ("blocks.norm1.scale", "blocks.{i}.norm1", "encoder.block.{i}.layer.0.layer_norm"),
    ("blocks.norm2.scale", "blocks.{i}.norm2", "encoder.block.{i}.layer.1.layer_norm"),
    ("norm.scale", "norm", "encoder.final_layer_norm"),
)

TRANSFORMERS_IGNORED = {r"encoder\.embed_tokens\.weight": "the same tensor as shared.weight"}


def wan(cfg: TextConfig) -> list[Row]:
    return _rows(column=1)


def transformers(cfg: TextConfig) -> list[Row]:
    return _rows(column=2)


def _rows(column: int) -> list[Row]:
    linear = [Row(f"{names[column]}.weight", f"{names[0]}.kernel", LINEAR) for names in _LINEAR]
    return linear + [Row(f"{names[column]}.weight", names[0]) for names in _SAME]


def transformers_config(cfg: TextConfig) -> dict[str, object]:
    """config.json of a `UMT5EncoderModel`."""
    return {
        "architectures": ["UMT5EncoderModel"],
        "model_type": "umt5",
        "d_ff": cfg.ffn_dim,
        "d_kv": cfg.attention_dim // cfg.heads,
        "d_model": cfg.dim,
        "dense_act_fn": "gelu_new",
        "feed_forward_proj": "gated-gelu",
        "is_encoder_decoder": True,
        "is_gated_act": True,
        "layer_norm_epsilon": cfg.eps,
        "num_heads": cfg.heads,
        "num_layers": cfg.layers,
        "relative_attention_max_distance": cfg.max_distance,
        "relative_attention_num_buckets": cfg.buckets,
        "vocab_size": cfg.vocab,
    }
