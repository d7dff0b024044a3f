"""The tokenizer: trained, saved, loaded, and its padding."""

import json

import numpy as np
import pytest
import tokenizers as hf

from relic_jax.errors import InputError
from relic_jax.models import tokenizer

CAPTIONS = [
    f"A {size} room with {color} walls, {count} pillars and a picture."
    for size in ("small", "large", "narrow")
    for color in ("red", "blue", "stone gray", "green")
    for count in ("two", "three", "no")
]


@pytest.fixture(scope="module")
def tok():
    return tokenizer.train(CAPTIONS, 256)


def test_ids_are_padded_on_the_right_and_ended(tok):
    ids, mask = tok(["a small room", ""], 12)
    assert ids.dtype == np.int32 and ids.shape == mask.shape == (2, 12)
    assert tok.pad == 0 and tok.eos == 1
    n = mask[0].sum()
    assert (mask[0] == (np.arange(12) < n)).all()
    assert ids[0, n - 1] == 1 and (ids[0, n:] == 0).all() and (ids[0, : n - 1] > 2).all()
    assert ids[1].tolist() == [1] + [0] * 11 and mask[1].sum() == 1


def test_long_captions_are_cut_and_still_ended(tok):
    ids, mask = tok([CAPTIONS[0] * 5], 10)
    assert mask.all() and ids[0, -1] == tok.eos and (ids[0, :-1] > 2).all()


def test_what_no_token_stands_for_is_counted(tok):
    ids, mask = tok([CAPTIONS[0]], 64)
    assert tok.count(CAPTIONS[0]) == (mask.sum(), [])
    count, unknown = tok.count("a \u623f\u95f4 room")
    assert "".join(unknown) == "\u623f\u95f4" and count == tok(["a \u623f\u95f4 room"], 64)[1].sum()


def test_frequent_words_are_one_token_and_rare_ones_are_spelt(tok):
    assert tok(["walls"], 8)[1].sum() == 2
    ids, mask = tok(["zebra #7~"], 32)
    assert (ids[mask] != 2).all()
    assert tok.decode(ids[0]) == "zebra #7~"


def test_case_does_not_matter(tok):
    np.testing.assert_array_equal(tok(["A Small ROOM"], 16)[0], tok(["a small room"], 16)[0])


def test_vocabulary_stays_within_its_bound(tok):
    assert tok.vocab <= 256
    assert tok(CAPTIONS, 64)[0].max() < tok.vocab
    with pytest.raises(InputError, match="vocab=20 is too small"):
        tokenizer.train(CAPTIONS, 20)


def test_training_is_deterministic(tok, tmp_path):
    tok.save(tmp_path / "a.json")
    tokenizer.train(CAPTIONS, 256).save(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_text() == (tmp_path / "b.json").read_text()


def test_save_and_load(tok, tmp_path):
    tok.save(tmp_path / "tokenizer.json")
    loaded = tokenizer.load(tmp_path / "tokenizer.json")
    for a, b in zip(tok(CAPTIONS, 40), loaded(CAPTIONS, 40), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [p.name for p in tmp_path.iterdir()] == ["tokenizer.json"]


def test_a_published_t5_file_is_read_as_it_is(tmp_path):
    """Unigram, special tokens in another order, its own template and padding: as umT5's tokenizer.json."""
    backend = hf.Tokenizer(hf.models.Unigram([("<pad>", 0.0), ("</s>", 0.0), ("<s>", 0.0), ("<unk>", 0.0),
                                              ("▁a", -1.0), ("▁room", -2.0), ("▁", -3.0)], 3, False))  # fmt: skip
    backend.pre_tokenizer = hf.pre_tokenizers.Metaspace()
    backend.add_special_tokens(["<pad>", "</s>", "<s>", "<unk>"])
    backend.post_processor = hf.processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    backend.enable_padding(length=50)
    backend.enable_truncation(2)
    backend.save(str(tmp_path / "tokenizer.json"))
    ids, mask = tokenizer.load(tmp_path / "tokenizer.json")(["a room a"], 6)
    assert ids.tolist() == [[4, 5, 4, 1, 0, 0]] and mask.sum() == 4


def test_bad_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.json does not exist"):
        tokenizer.load(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InputError, match=r"bad\.json is not a readable tokenizer"):
        tokenizer.load(tmp_path / "bad.json")
    other = hf.Tokenizer(hf.models.BPE())
    (tmp_path / "other.json").write_text(json.dumps(json.loads(other.to_str())))
    with pytest.raises(InputError, match=r"other\.json has no token <pad>"):
        tokenizer.load(tmp_path / "other.json")
    with pytest.raises(InputError, match="can't be written"):
        tokenizer.train(CAPTIONS, 256).save(tmp_path / "no" / "tokenizer.json")
