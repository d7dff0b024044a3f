"""A model's configuration: frozen dataclasses with named constructors (`fields` has their checks and conversions).

A configuration is data. Everything that can be wrong about it is said here, in one sentence, before
anything is compiled. Numbers are SPEC 0's; a field the paper is silent about says so.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from typing import Literal

# What whoever writes a config needs beside the classes below.
from relic_jax.config_vae import TinyVAEConfig as TinyVAEConfig
from relic_jax.config_vae import VAEConfig as VAEConfig
from relic_jax.fields import ConfigError as ConfigError
from relic_jax.fields import above as above
from relic_jax.fields import at_least as at_least
from relic_jax.fields import finite as finite
from relic_jax.fields import first_difference as first_difference
from relic_jax.fields import from_config_dict as from_config_dict
from relic_jax.fields import one_of as one_of
from relic_jax.fields import require as require
from relic_jax.fields import sizes as sizes
from relic_jax.fields import to_config_dict as to_config_dict
from relic_jax.fields import within as within

# Per-channel statistics of Wan 2.1's latents (public model constants, the VAE's own config).
WAN_LATENT_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
WAN_LATENT_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip

# Memory's down-sampling factor per side, repeated over latent index (RELIC 4.3).
RELIC_SCHEDULE = (1, 4, 2, 4, 4, 4, 2, 4, 4, 2, 4, 4, 4, 2, 4, 4, 2, 4)


@dataclasses.dataclass(frozen=True)
class VideoConfig:
    """Pixels and time. `height` and `width` in pixels, `fps` in frames per second."""

    height: int = 480
    width: int = 832
    fps: int = 16

    def __post_init__(self) -> None:
        sizes(self, "video", "height", "width", "fps")

    @classmethod
    def wan(cls) -> VideoConfig:
        return cls()

    @classmethod
    def tiny(cls) -> VideoConfig:
        return cls(height=64, width=96)


@dataclasses.dataclass(frozen=True)
class DiTConfig:
    """Wan 2.1's diffusion transformer with RELIC's two conditioning paths (SPEC 1 and 2)."""

    dim: int = 5120
    ffn_dim: int = 13824
    heads: int = 40
    layers: int = 40
    latent_channels: int = 16
    patch: int = 2  # spatial patch side, in latent cells; the temporal patch is 1
    freq_dim: int = 256
    text_len: int = 512
    text_dim: int = 4096
    text_layers: int = 0  # of an encoder of the transformer's own, trained with it, on what the text encoder gives
    text_width: int = 128  # of that encoder
    text_mask: bool = False  # the padding of a text is not attended to; Wan's own attends to it
    cond_dim: int = 1024  # width of the action and pose embeddings; the paper is silent
    eps: float = 1e-6
    rope_theta: float = 1e4
    yarn_scale: float = 1.0  # s = L' / 21 of SPEC 3; 1 is Wan's RoPE bit for bit
    yarn_beta_fast: float = 1.0
    yarn_beta_slow: float = 0.6

    def __post_init__(self) -> None:
        sizes(self, "dit", "dim", "ffn_dim", "heads", "layers", "latent_channels", "patch", "freq_dim")
        sizes(self, "dit", "text_len", "text_dim", "text_width", "cond_dim")
        sizes(self, "dit", "text_layers", least=0)
        above(self, "dit", 0, "eps", "rope_theta")
        require(self.dim % self.heads == 0, f"dit.dim={self.dim} is not a multiple of dit.heads={self.heads}")
        require(self.head_dim % 2 == 0, f"dit.dim / dit.heads = {self.head_dim} must be even for RoPE")
        require(self.yarn_scale >= 1, f"dit.yarn_scale={self.yarn_scale} must be at least 1")

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    @classmethod
    def wan_14b(cls) -> DiTConfig:
        return cls()

    @classmethod
    def wan_1_3b(cls) -> DiTConfig:
        return cls(dim=1536, ffn_dim=8960, heads=12, layers=30, cond_dim=512)

    @classmethod
    def tiny(cls) -> DiTConfig:
        return cls(dim=256, ffn_dim=768, heads=4, layers=6, freq_dim=64, text_len=32, text_dim=64, cond_dim=64)


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """umT5 encoder (SPEC 1): gated-GELU, relative position bias in every layer.

    With `layers=0` there is none: a token's state is the one-hot vector of its id, `dim` is `vocab`, and the
    transformer learns what words mean (`dit.text_layers`).
    """

    vocab: int = 256384
    dim: int = 4096
    attention_dim: int = 4096
    ffn_dim: int = 10240
    heads: int = 64
    layers: int = 24
    buckets: int = 32
    max_distance: int = 128
    length: int = 512
    eps: float = 1e-6

    def __post_init__(self) -> None:
        sizes(self, "text", "vocab", "dim", "attention_dim", "ffn_dim", "heads", "buckets", "max_distance", "length")
        sizes(self, "text", "layers", least=0)
        require(
            self.layers > 0 or self.dim == self.vocab,
            f"text.dim={self.dim} differs from text.vocab={self.vocab}: without text.layers words are one-hot vectors",
        )
        above(self, "text", 0, "eps")

    @classmethod
    def umt5_xxl(cls) -> TextConfig:
        return cls()

    @classmethod
    def tiny(cls) -> TextConfig:
        return cls(vocab=512, dim=64, attention_dim=64, ffn_dim=128, heads=4, layers=2, length=32)


@dataclasses.dataclass(frozen=True)
class MemoryConfig:
    """The compressed KV cache (SPEC 4). Counts are in latent frames."""

    mode: Literal["relic", "window", "full"] = "relic"
    compress: Literal["latent", "kv"] = "latent"
    window: int = 8  # full resolution, the block being denoised included; the paper is silent
    horizon: int = 80  # the window and the memory together: 20 s; see RelicConfig._check_horizon
    schedule: tuple[int, ...] = RELIC_SCHEDULE
    keep_picture: bool = True  # latent 0 stays when older latents leave first-in first-out

    def __post_init__(self) -> None:
        for field, value, valid in (
            ("mode", self.mode, ("relic", "window", "full")),
            ("compress", self.compress, ("latent", "kv")),
        ):
            require(value in valid, f"memory.{field}={value!r} is not one of {', '.join(valid)}")
        sizes(self, "memory", "window", "horizon")
        require(self.horizon >= self.window, f"memory.horizon={self.horizon} is below memory.window={self.window}")
        require(
            bool(self.schedule) and all(s in (1, 2, 4) for s in self.schedule),
            f"memory.schedule={self.schedule} must be a non-empty sequence of the factors 1, 2 and 4",
        )
        require(
            self.schedule[0] == 1 or not self.keep_picture,
            f"memory.schedule={self.schedule} must begin with 1: memory.keep_picture keeps latent 0 whole",
        )


# The kinds of memory that are compared with each other, as changes to a `MemoryConfig`.
MEMORIES = {
    "relic": {"mode": "relic"},
    "window": {"mode": "window"},
    "full": {"mode": "full"},
    "relic_kv": {"mode": "relic", "compress": "kv"},
}


@dataclasses.dataclass(frozen=True)
class StreamConfig:
    """Few-step block-causal generation (SPEC 4)."""

    block: int = 4  # latents generated together; the paper is silent
    timesteps: tuple[float, ...] = (1000.0, 937.5, 2500.0 / 3.0, 625.0)
    solver: Literal["renoise", "euler"] = "renoise"
    translation_unit: float = 0.1  # world units per frame of an action of magnitude 1
    rotation_unit: float = 1.0  # degrees per frame of an action of magnitude 1

    def __post_init__(self) -> None:
        sizes(self, "stream", "block")
        above(self, "stream", 0, "translation_unit", "rotation_unit")
        require(self.solver in ("renoise", "euler"), f"stream.solver={self.solver!r} is not one of renoise, euler")
        require(
            bool(self.timesteps)
            and all(0 < t <= 1000 for t in self.timesteps)
            and list(self.timesteps) == sorted(self.timesteps, reverse=True),
            f"stream.timesteps={self.timesteps} must fall within (0, 1000] from high to low",
        )


@dataclasses.dataclass(frozen=True)
class PrecisionConfig:
    """Two knobs: the dtype of matrix products and that of the stored keys and values.

    `cache="float8_e4m3fn"` halves the cache (SPEC 7). No scales are kept: keys leave their RMS norm at a size near 1,
    where E4M3 keeps 3 bits of mantissa from 2^-6 up to 448, and what is larger is stored as 448.
    """

    compute: Literal["float32", "bfloat16"] = "bfloat16"
    cache: Literal["float32", "bfloat16", "float8_e4m3fn"] = "bfloat16"

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in ("compute", "cache"):
            value, valid = getattr(self, field), typing.get_args(hints[field])
            require(value in valid, f"precision.{field}={value!r} is not one of {', '.join(valid)}")


@dataclasses.dataclass(frozen=True)
class RelicConfig:
    """One model, whole: what it looks like and how it is run."""

    name: str = "relic-14b"
    video: VideoConfig = VideoConfig()
    dit: DiTConfig = DiTConfig()
    vae: VAEConfig = VAEConfig()
    text: TextConfig = TextConfig()
    memory: MemoryConfig = MemoryConfig()
    stream: StreamConfig = StreamConfig()
    precision: PrecisionConfig = PrecisionConfig()

    def __post_init__(self) -> None:
        finite(self, "config")
        side = self.vae.spatial_stride * self.dit.patch
        require(
            self.video.height % side == 0 and self.video.width % side == 0,
            f"video.height={self.video.height} and video.width={self.video.width} must be multiples of {side} "
            "(VAE stride x DiT patch)",
        )
        require(
            self.dit.latent_channels == self.vae.latent_channels,
            f"dit.latent_channels={self.dit.latent_channels} differs from "
            f"vae.latent_channels={self.vae.latent_channels}",
        )
        require(
            self.dit.text_dim == self.text.dim and self.dit.text_len == self.text.length,
            f"dit.text_dim, dit.text_len = {self.dit.text_dim}, {self.dit.text_len} differ from text.dim, "
            f"text.length = {self.text.dim}, {self.text.length}",
        )
        block, window = self.stream.block, self.memory.window
        require(
            window % block == 0 and window >= 2 * block,
            f"memory.window={window} must be a multiple of stream.block={block} and at least twice it",
        )
        require(
            self.memory.horizon % block == 0,
            f"memory.horizon={self.memory.horizon} must be a multiple of stream.block={block}",
        )
        self._check_horizon()

    def _check_horizon(self) -> None:
        """The ring has whole periods of the schedule and whole blocks, so that a slot's size never changes."""
        memory = self.memory
        step = math.lcm(len(memory.schedule), self.stream.block)
        below = memory.window + (memory.horizon - memory.window) // step * step
        require(
            memory.mode != "relic" or memory.horizon == below,
            f"memory.horizon={memory.horizon} can't be had: compressed memory holds whole periods of memory.schedule "
            f"and whole blocks, so it is memory.window={memory.window} and a multiple of {step}; the nearest are "
            f"{below}{' (no memory)' if below == memory.window else ''} and {below + step}",
        )

    def stretched(self, latents: int) -> RelicConfig:
        """The same model with RoPE extended to sequences of so many latents (SPEC 3); up to 21 it is Wan's own."""
        return dataclasses.replace(self, dit=dataclasses.replace(self.dit, yarn_scale=max(1.0, latents / 21)))

    @property
    def latent_size(self) -> tuple[int, int]:
        """Height and width of a latent frame."""
        return self.video.height // self.vae.spatial_stride, self.video.width // self.vae.spatial_stride

    @property
    def token_grid(self) -> tuple[int, int]:
        """Rows and columns of tokens in a latent frame."""
        h, w = self.latent_size
        return h // self.dit.patch, w // self.dit.patch

    @property
    def tokens_per_latent(self) -> int:
        rows, columns = self.token_grid
        return rows * columns

    @classmethod
    def wan_14b(cls) -> RelicConfig:
        return cls(dit=DiTConfig(yarn_scale=80 / 21))

    @classmethod
    def wan_1_3b(cls) -> RelicConfig:
        return cls(name="relic-1.3b", dit=dataclasses.replace(DiTConfig.wan_1_3b(), yarn_scale=80 / 21))

    @classmethod
    def tiny(cls) -> RelicConfig:
        return cls(
            name="relic-tiny",
            video=VideoConfig.tiny(),
            dit=DiTConfig.tiny(),
            vae=VAEConfig.tiny(),
            text=TextConfig.tiny(),
            precision=PrecisionConfig(compute="float32", cache="float32"),
        )
