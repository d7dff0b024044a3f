"""Captions to token ids: a thin class over Hugging Face `tokenizers`, for umT5's file or a small one trained here."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tokenizers
from jaxtyping import Bool, Int
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from relic_jax import files
from relic_jax.errors import InputError

PAD, EOS, UNKNOWN = "<pad>", "</s>", "<unk>"


class Tokenizer:
    """Encodes captions, the end token appended, padded on the right (T5's convention)."""

    def __init__(self, backend: tokenizers.Tokenizer):
        self._backend = backend
        self._backend.no_padding()  # a file's own settings don't apply: __call__ says the length
        self._backend.no_truncation()
        self.pad, self.eos = backend.token_to_id(PAD), backend.token_to_id(EOS)

    @property
    def vocab(self) -> int:
        """Ids are below this."""
        return self._backend.get_vocab_size()

    def __call__(self, captions: list[str], length: int) -> tuple[Int[np.ndarray, "B N"], Bool[np.ndarray, "B N"]]:
        """Ids (int32) and which of them are tokens; captions longer than `length` - 1 tokens are cut."""
        ids = np.full((len(captions), length), self.pad, np.int32)
        mask = np.zeros((len(captions), length), bool)
        for row, encoding in enumerate(self._backend.encode_batch(captions, add_special_tokens=False)):
            tokens = [*encoding.ids[: length - 1], self.eos]
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = True
        return ids, mask

    def count(self, caption: str) -> tuple[int, list[str]]:
        """Tokens of a caption, its end token among them, and what of it no token stands for."""
        encoding, unknown = self._backend.encode(caption, add_special_tokens=False), self._backend.token_to_id(UNKNOWN)
        spans = [span for span, token in zip(encoding.offsets, encoding.ids, strict=True) if token == unknown]
        return len(encoding.ids) + 1, [caption[start:end] for start, end in spans]

    def decode(self, ids: Int[np.ndarray, " N"]) -> str:
        """The text of ids; special tokens are left out."""
        return self._backend.decode(ids.tolist())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a `tokenizer.json`, under a temporary name that is renamed when it is complete."""
        path = Path(path)
        temporary = files.temporary(path)
        try:
            temporary.write_text(self._backend.to_str(pretty=True), encoding="utf-8")
            temporary.replace(path)
        except OSError as error:
            raise InputError(f"{path} can't be written: {error}") from error
        finally:
            temporary.unlink(missing_ok=True)


def load(path: str | os.PathLike[str]) -> Tokenizer:
    """The tokenizer of a `tokenizer.json`.

    Raises:
      InputError: the file is missing, isn't a tokenizer, or lacks the padding or end token.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; expected a tokenizer.json")
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for what it can't parse
        raise InputError(f"{path} is not a readable tokenizer.json: {error}") from error
    for token in (PAD, EOS):
        if backend.token_to_id(token) is None:
            raise InputError(f"{path} has no token {token}; expected a T5 tokenizer")
    return Tokenizer(backend)


def train(captions: Iterable[str], vocab: int) -> Tokenizer:
    """A case-insensitive BPE tokenizer of at most `vocab` ids: padding 0, end 1, unknown 2.

    Every printable ASCII character has an id, so that words the captions lack are spelt, not lost.
    """
    alphabet = sorted({chr(code).lower() for code in range(0x21, 0x7F)} | {"▁"})
    specials = [PAD, EOS, UNKNOWN]
    smallest = len(specials) + len(alphabet)
    if vocab < smallest:
        raise InputError(f"vocab={vocab} is too small for a tokenizer; expected {smallest} or more")
    backend = tokenizers.Tokenizer(models.BPE(unk_token=UNKNOWN))
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    backend.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(captions, trainer)
    return Tokenizer(backend)
