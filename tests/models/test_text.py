"""Prompt cleaning, and captions to features."""

import html
import re

import ftfy
import jax
import numpy as np
import pytest

from relic_jax.config import TextConfig
from relic_jax.errors import InputError
from relic_jax.models import module, text, tokenizer, umt5

pytestmark = pytest.mark.usefixtures("compile_once")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("  a  room\twith\n two   doors ", "a room with two doors"),
        ("a &amp;amp; b &lt;c&gt;", "a & b <c>"),
        ("itâ€™s a schÃ¶n room", "it's a schön room"),
        ("une pièce", "une pièce"),
        ("全角 text", "全角 text"),
    ],
)
def test_normalize(raw, expected):
    assert text.normalize(raw) == expected


@pytest.mark.parametrize("raw", ["a &nbsp; b", "x\u3000y", "  &amp;lt; ", "tab\there\r\n", "â€œquotedâ€\x9d"])
def test_normalize_equals_wan(raw):
    basic = html.unescape(html.unescape(ftfy.fix_text(raw))).strip()
    assert text.normalize(raw) == re.sub(r"\s+", " ", basic).strip()


@pytest.mark.parametrize("nothing", ["", "  \n\t", "&nbsp;"])
def test_an_empty_prompt_is_said_to_be_empty(nothing):
    with pytest.raises(InputError, match="the prompt is empty"):
        text.clean(nothing)


def test_clean_normalizes():
    assert text.clean(" a   room ") == "a room"


def test_embed_is_zero_padded_and_takes_the_unconditional_caption():
    cfg = TextConfig.tiny()
    tok = tokenizer.train(["a room with red walls", "a hall with two pillars"], cfg.vocab)
    params = module.init(umt5.UMT5, cfg, jax.random.key(0))
    features = np.asarray(text.embed(params, cfg, tok, [" a  room ", text.UNCONDITIONAL]))
    assert features.shape == (2, cfg.length, cfg.dim)
    _, mask = tok(["a room", ""], cfg.length)
    assert mask[1].sum() == 1
    assert (features[~mask] == 0).all() and np.abs(features[mask]).min(-1).max() > 0
    np.testing.assert_array_equal(features[0], text.embed(params, cfg, tok, ["a room", "x"])[0])


def test_what_the_encoder_wont_see_is_said():
    tok = tokenizer.train(["a room with red walls"] * 4, 128)
    assert text.losses(tok, 32, "A room  with red walls") == []
    (cut,) = text.losses(tok, 32, "a room with red walls " * 200)
    assert re.fullmatch(r"the prompt has \d+ tokens, the text encoder takes 32: its end is cut off", cut)
    exact = tok.count("a room with red walls")[0]
    assert text.losses(tok, exact, "a room with red walls") == []
    assert len(text.losses(tok, exact - 1, "a room with red walls")) == 1
    (unknown,) = text.losses(tok, 32, "\u4e00\u4e2a \u623f\u95f4")
    assert re.match(r"the text encoder knows nothing of \d of the prompt's \d tokens: \u4e00", unknown)
    assert len(text.losses(tok, 8, "\u623f" * 500)) == 2
