"""Text before the encoder: cleaned as Wan does, and a caption's way to features."""

from __future__ import annotations

import html

import ftfy
import jax.numpy as jnp
from jaxtyping import Array, Float

from relic_jax.config import TextConfig
from relic_jax.errors import InputError
from relic_jax.models import umt5
from relic_jax.models.module import Params
from relic_jax.models.tokenizer import Tokenizer

_SHOWN = 60  # characters of what is unknown
UNCONDITIONAL = ""  # the caption of guidance's unconditional branch; encodes to the end token alone


def normalize(text: str) -> str:
    """Repaired encoding (ftfy), HTML entities resolved twice, runs of white space to one blank; may be empty.

    Source: Wan 2.1 `wan/modules/tokenizers.py`, clean="whitespace".
    """
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split())


def clean(prompt: str) -> str:
    """A person's prompt, normalized.

    Raises:
      InputError: nothing is left of it.
    """
    text = normalize(prompt)
    if not text:
        raise InputError(f"the prompt is empty ({prompt!r}); expected a sentence that describes the scene")
    return text


def losses(tokenizer: Tokenizer, length: int, prompt: str) -> list[str]:
    """What the encoder won't see of a prompt, a sentence each; none where it sees all of it.

    Args:
      length: tokens that the encoder takes (`TextConfig.length`).
    """
    count, unknown = tokenizer.count(normalize(prompt))
    said = []
    if count > length:
        said.append(f"the prompt has {count} tokens, the text encoder takes {length}: its end is cut off")
    if unknown:
        shown = " ".join(dict.fromkeys(unknown))
        shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]} ..."
        said.append(f"the text encoder knows nothing of {len(unknown)} of the prompt's {count - 1} tokens: {shown}")
    return said


def embed(params: Params, cfg: TextConfig, tokenizer: Tokenizer, captions: list[str]) -> Float[Array, "B N D"]:
    """Features of captions, zero beyond each one's end; N is `cfg.length`.

    Args:
      params: of `umt5.text_encoder`.
      captions: normalized here; `UNCONDITIONAL` is allowed (`clean` is for what a person typed).
    """
    ids, mask = tokenizer([normalize(caption) for caption in captions], cfg.length)
    return umt5.encode(params, cfg, jnp.asarray(ids), jnp.asarray(mask))
