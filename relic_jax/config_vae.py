"""The configurations of the two autoencoders; part of `config`, which hands them on."""

from __future__ import annotations

import dataclasses

from relic_jax.fields import require, sizes


class _Grouped:
    """Of an autoencoder's config: which frames a latent frame holds. The first has one alone (SPEC 0)."""

    temporal_down: tuple[bool, ...]

    @property
    def temporal_stride(self) -> int:
        """Video frames of each latent frame but the first."""
        return 2 ** sum(self.temporal_down)

    def frames_of(self, latents: int) -> int:
        """Video frames of so many latent frames."""
        return self.temporal_stride * (latents - 1) + 1

    def latents_of(self, frames: int) -> int:
        """Latent frames that hold at least so many video frames."""
        return -(-(frames - 1) // self.temporal_stride) + 1


@dataclasses.dataclass(frozen=True)
class VAEConfig(_Grouped):
    """Wan 2.1's causal video VAE (SPEC 1).

    `multipliers` gives one level each; every level but the last halves the sides, and level i also
    halves time where `temporal_down[i]`. `patch_size` folds pixels into channels first, as Wan 2.2 does.
    `extra_res_blocks` are each level's, in both halves, beyond Wan's: the shipped tiny VAE has some, and must load.
    """

    latent_channels: int = 16
    base_dim: int = 96
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    res_blocks: int = 2
    temporal_down: tuple[bool, ...] = (False, True, True)
    patch_size: int = 1
    extra_res_blocks: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        sizes(self, "vae", "latent_channels", "base_dim", "multipliers", "res_blocks", "patch_size")
        require(
            not self.extra_res_blocks or len(self.extra_res_blocks) == len(self.multipliers),
            f"vae.extra_res_blocks has {len(self.extra_res_blocks)} entries, expected none, or "
            f"{len(self.multipliers)}: one a level of vae.multipliers",
        )
        require(
            len(self.temporal_down) == len(self.multipliers) - 1,
            f"vae.temporal_down has {len(self.temporal_down)} entries, expected {len(self.multipliers) - 1}, one a "
            "level of vae.multipliers but the last",
        )

    def extra_blocks_of(self, level: int) -> int:
        """Its residual blocks, in either half, beyond Wan's."""
        return self.extra_res_blocks[level] if self.extra_res_blocks else 0

    @property
    def spatial_stride(self) -> int:
        return self.patch_size * 2 ** (len(self.multipliers) - 1)

    @classmethod
    def wan(cls) -> VAEConfig:
        return cls()

    @classmethod
    def tiny(cls) -> VAEConfig:
        return cls(base_dim=20, multipliers=(1, 2, 4), res_blocks=1, temporal_down=(True, True), patch_size=2)


@dataclasses.dataclass(frozen=True)
class TinyVAEConfig(_Grouped):
    """TAEHV's tiny autoencoder for Wan's latents (`models/tiny_vae.py`).

    Each level halves the sides on the way down, and time where `temporal_down`; the decoder takes the levels in
    reverse. `decoder_dims` has one width more than there are levels, that of full resolution.
    """

    latent_channels: int = 16
    encoder_dim: int = 64
    decoder_dims: tuple[int, ...] = (256, 128, 64, 64)
    blocks: int = 3
    temporal_down: tuple[bool, ...] = (True, True, False)

    def __post_init__(self) -> None:
        sizes(self, "tiny_vae", "latent_channels", "encoder_dim", "decoder_dims", "blocks")
        require(
            len(self.decoder_dims) == len(self.temporal_down) + 1,
            f"tiny_vae.decoder_dims has {len(self.decoder_dims)} entries, expected {len(self.temporal_down) + 1}, one "
            "a level of tiny_vae.temporal_down and one for full resolution",
        )

    @property
    def spatial_stride(self) -> int:
        return 2 ** len(self.temporal_down)

    @classmethod
    def taew2_1(cls) -> TinyVAEConfig:
        return cls()
