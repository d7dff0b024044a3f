import pytest

from relic_jax.data import captions, scene

MOTION = {"camera", "moving", "moves", "turns", "pans", "walks", "forward", "left", "right", "video"}


def test_captions_are_short_static_and_true():
    for seed in range(200):
        _, words = scene.build_scene(seed)
        caption = captions.caption(words, seed)
        said = caption.replace(",", "").split()
        assert len(said) <= 28
        assert not MOTION & set(said)
        assert words.size in said and words.walls[0] in said
        assert ("room" in said) == words.indoors
        assert not any(article == "a" and noun[0] in "aeiou" for article, noun in zip(said, said[1:], strict=False))
        assert caption == captions.caption(words, seed)


@pytest.mark.parametrize(
    ("colors", "expected"),
    [((), ""), (("orange",), "an orange box"), (("red", "blue", "red"), "three red and blue boxes")],
)
def test_things(colors, expected):
    assert captions.things_of("box", colors) == expected
