"""Tiny random PyTorch models of every kind, their state dicts in both layouts, and the command line."""

import dataclasses
import json

import numpy as np
import torch
from torch import nn

from relic_jax.config import DiTConfig, TextConfig, VAEConfig
from relic_jax.models import module, umt5
from tests.weights_convert.sources import run
from weights_convert import state_dict
from weights_convert.tables import MODELS

DIT = DiTConfig(dim=96, ffn_dim=200, heads=2, layers=3, text_len=16, text_dim=32, cond_dim=24, freq_dim=64)
VAE = VAEConfig(base_dim=8)  # as deep as Wan's: its names depend on it
TEXT = TextConfig(vocab=97, dim=48, attention_dim=64, ffn_dim=80, heads=4, layers=3, length=24)
CONFIGS = {"wan-t2v-1.3b": DIT, "wan-t2v-14b": DIT, "wan-vae": VAE, "umt5-xxl": TEXT}


def params_of(model: str, cfg, state: dict, layout: str = "diffusers") -> module.Params:
    """Our parameters from a PyTorch state dict in memory."""
    arrays = {name: np.asarray(value.detach()) for name, value in state.items()}
    return state_dict.params_of(dataclasses.replace(MODELS[model], config=cfg), arrays, layout)


def randomise(model: nn.Module, scale: float = 0.3) -> nn.Module:
    """Norms and biases too, so that no leaf's place is left untested."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn_like(parameter) if parameter.ndim == 1 else 0)
    return model


def torch_dit(cfg: DiTConfig) -> nn.Module:
    from diffusers import WanTransformer3DModel

    return WanTransformer3DModel(
        num_attention_heads=cfg.heads,
        attention_head_dim=cfg.head_dim,
        text_dim=cfg.text_dim,
        freq_dim=cfg.freq_dim,
        ffn_dim=cfg.ffn_dim,
        num_layers=cfg.layers,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=1024,
    ).eval()


def torch_vae(cfg: VAEConfig) -> nn.Module:
    from diffusers import AutoencoderKLWan

    channels = 3 * cfg.patch_size**2
    return AutoencoderKLWan(
        base_dim=cfg.base_dim,
        z_dim=cfg.latent_channels,
        dim_mult=list(cfg.multipliers),
        num_res_blocks=cfg.res_blocks,
        temperal_downsample=list(cfg.temporal_down),
        in_channels=channels,
        out_channels=channels,
        patch_size=cfg.patch_size if cfg.patch_size > 1 else None,
        scale_factor_spatial=cfg.spatial_stride,
    ).eval()


def torch_umt5(cfg: TextConfig) -> nn.Module:
    import transformers

    return transformers.UMT5EncoderModel(
        transformers.UMT5Config(
            vocab_size=cfg.vocab,
            d_model=cfg.dim,
            d_kv=cfg.attention_dim // cfg.heads,
            d_ff=cfg.ffn_dim,
            num_layers=cfg.layers,
            num_heads=cfg.heads,
            relative_attention_num_buckets=cfg.buckets,
            relative_attention_max_distance=cfg.max_distance,
            feed_forward_proj="gated-gelu",
            layer_norm_epsilon=cfg.eps,
            dropout_rate=0.0,
        )
    ).eval()


class WanText(nn.Module):
    """The text encoder as Wan's own file names it, written from the architecture (T5 1.1, a bias in every layer)."""

    class Norm(nn.Module):
        def __init__(self, cfg: TextConfig):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(cfg.dim))
            self.eps = cfg.eps

        def forward(self, x):
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight

    class Block(nn.Module):
        def __init__(self, cfg: TextConfig):
            super().__init__()
            self.cfg, width = cfg, cfg.attention_dim
            self.norm1, self.norm2 = WanText.Norm(cfg), WanText.Norm(cfg)
            sizes = {"q": (cfg.dim, width), "k": (cfg.dim, width), "v": (cfg.dim, width), "o": (width, cfg.dim)}
            self.attn = nn.ModuleDict({key: nn.Linear(*size, bias=False) for key, size in sizes.items()})
            self.pos_embedding = nn.ModuleDict({"embedding": nn.Embedding(cfg.buckets, cfg.heads)})
            gate = nn.Sequential(nn.Linear(cfg.dim, cfg.ffn_dim, bias=False), nn.GELU(approximate="tanh"))
            up, down = nn.Linear(cfg.dim, cfg.ffn_dim, bias=False), nn.Linear(cfg.ffn_dim, cfg.dim, bias=False)
            self.ffn = nn.ModuleDict({"gate": gate, "fc1": up, "fc2": down})

        def forward(self, x, mask):
            cfg, h = self.cfg, self.norm1(x)
            q, k, v = (self.attn[n](h).unflatten(-1, (cfg.heads, -1)).transpose(1, 2) for n in "qkv")
            buckets = umt5.relative_position_bucket(x.shape[1], cfg.buckets, cfg.max_distance)
            bias = self.pos_embedding["embedding"](torch.from_numpy(buckets).long()).permute(2, 0, 1)
            scores = q @ k.transpose(-1, -2) + bias
            scores = scores.masked_fill(~mask[:, None, None], torch.finfo(scores.dtype).min)
            x = x + self.attn["o"]((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
            h = self.norm2(x)
            return x + self.ffn["fc2"](self.ffn["gate"](h) * self.ffn["fc1"](h))

    def __init__(self, cfg: TextConfig):
        super().__init__()
        self.token_embedding = nn.Embedding(cfg.vocab, cfg.dim)
        self.blocks = nn.ModuleList(WanText.Block(cfg) for _ in range(cfg.layers))
        self.norm = WanText.Norm(cfg)

    def forward(self, ids, mask):
        x = self.token_embedding(ids)
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)


def wan_dit_names(layers: int) -> list[str]:
    """The tensors of a Wan 2.1 text-to-video transformer, as its files name them."""
    parts = ["patch_embedding", "text_embedding.0", "text_embedding.2", "time_embedding.0", "time_embedding.2"]
    parts += ["time_projection.1", "head.head"]
    for i in range(layers):
        parts += [f"blocks.{i}.{a}.{n}" for a in ("self_attn", "cross_attn") for n in "qkvo"]
        parts += [f"blocks.{i}.norm3", f"blocks.{i}.ffn.0", f"blocks.{i}.ffn.2"]
    names = [f"{part}.{kind}" for part in parts for kind in ("weight", "bias")]
    for i in range(layers):
        names.append(f"blocks.{i}.modulation")
        names += [f"blocks.{i}.{a}.norm_{n}.weight" for a in ("self_attn", "cross_attn") for n in "qk"]
    return [*names, "head.modulation"]


def wan_vae_names() -> list[str]:
    """The tensors of Wan2.1_VAE.pth."""

    def residual(prefix: str, shortcut: bool = False) -> list[str]:
        names = [f"{prefix}.residual.{n}.gamma" for n in (0, 3)]
        names += [f"{prefix}.residual.{n}.{kind}" for n in (2, 6) for kind in ("weight", "bias")]
        return names + ([f"{prefix}.shortcut.weight", f"{prefix}.shortcut.bias"] if shortcut else [])

    def affine(*parts: str) -> list[str]:
        return [f"{part}.{kind}" for part in parts for kind in ("weight", "bias")]

    names = affine("conv1", "conv2")
    for half in ("encoder", "decoder"):
        middle = f"{half}.middle"
        names += affine(f"{half}.conv1", f"{half}.head.2") + [f"{half}.head.0.gamma"]
        names += residual(f"{middle}.0") + residual(f"{middle}.2")
        names += [f"{middle}.1.norm.gamma", *affine(f"{middle}.1.to_qkv", f"{middle}.1.proj")]
    # Two residual blocks and a step down a level; the width changes in levels 1 and 2.
    for n in (0, 1, 3, 4, 6, 7, 9, 10):
        names += residual(f"encoder.downsamples.{n}", shortcut=n in (3, 6))
    names += affine(*(f"encoder.downsamples.{n}.resample.1" for n in (2, 5, 8)))
    names += affine(*(f"encoder.downsamples.{n}.time_conv" for n in (5, 8)))
    # Three residual blocks and a step up a level, which halves the width.
    for n in (0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14):
        names += residual(f"decoder.upsamples.{n}", shortcut=n == 4)
    names += affine(*(f"decoder.upsamples.{n}.resample.1" for n in (3, 7, 11)))
    return names + affine(*(f"decoder.upsamples.{n}.time_conv" for n in (3, 7)))


def wan_text_names(layers: int) -> list[str]:
    """The tensors of models_t5_umt5-xxl-enc-bf16.pth."""
    parts = [f"attn.{n}" for n in "qkvo"] + ["ffn.gate.0", "ffn.fc1", "ffn.fc2", "norm1", "norm2"]
    parts.append("pos_embedding.embedding")
    return ["token_embedding.weight", "norm.weight"] + [f"blocks.{i}.{p}.weight" for i in range(layers) for p in parts]


def diffusers_names(model: str, names: list[str]) -> dict[str, str]:
    """What diffusers' own loader of original files calls these tensors."""
    from diffusers.loaders import single_file_utils as loader

    convert = loader.convert_wan_vae_to_diffusers if model == "wan-vae" else loader.convert_wan_transformer_to_diffusers
    numbered = {name: torch.tensor(float(i)) for i, name in enumerate(names)}
    return {names[int(number)]: theirs for theirs, number in convert(numbered).items()}


_PROGRAM = """
import contextlib, io, json, sys
from absl import flags
from absl.testing import flagsaver
from weights_convert import __main__ as program
for arguments in json.loads(sys.argv[1]):
    saved = flagsaver.save_flag_values()
    flags.FLAGS.unparse_flags()
    sys.argv, out, err, code = ["weights_convert", *arguments], io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            program.main()
        except SystemExit as error:
            code = error.code or 0
    flagsaver.restore_flag_values(saved)
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""


def commands(*lines: list) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of command lines of `python -m weights_convert`, all in one process: starting
    one takes seconds."""
    out = run(_PROGRAM, json.dumps([[str(word) for word in line] for line in lines]))
    return [tuple(json.loads(line)) for line in out.splitlines()]
