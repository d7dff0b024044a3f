"""Template captions of a scene's static attributes; never of motion, of the camera or of anything else (SPEC 8)."""

from collections import Counter

import numpy as np

from relic_jax.data.scene import Description

_COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def caption(words: Description, seed: int) -> str:
    """One sentence about a scene; the seed picks its form. At most 28 words, so that it fits the tiny encoder."""
    rng = np.random.default_rng([seed, 2])
    walls = f"{_material(*words.walls)} walls"
    floor = _a(f"{_material(*words.floor)} floor")
    top = _a(f"{words.ceiling} {'ceiling' if words.indoors else 'sky'}")
    place = f"{words.size} {'room' if words.indoors else 'courtyard'}"
    things = _list([t for t in (things_of("box", words.boxes), things_of("pillar", words.pillars)) if t])
    pictures = len(words.pictures)
    on_walls = f", {_COUNTS[pictures]} picture{'s' * (pictures > 1)} on the walls" if pictures else ""
    forms = (
        f"a {place} with {walls}, {floor} and {top}{on_walls}",
        f"{things} in a {place} with {walls} and {floor} under {top}",
        f"a {place} with {walls} and {things}{on_walls}",
    )
    return forms[int(rng.integers(len(forms)))]


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _material(color: str, pattern: str) -> str:
    return color if pattern == "plain" else f"{pattern} {color}"


def things_of(noun: str, colors: tuple[str, ...]) -> str:
    """How many there are and the two commonest colours: few words that tell scenes apart."""
    if not colors:
        return ""
    plural = {"box": "boxes", "pillar": "pillars"}[noun]
    if len(colors) == 1:
        return _a(f"{colors[0]} {noun}")
    named = _list([c for c, _ in Counter(colors).most_common(2)])
    return f"{_COUNTS[len(colors)]} {named} {plural}"


def _list(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1])] * (len(parts) > 1) + parts[-1:])
