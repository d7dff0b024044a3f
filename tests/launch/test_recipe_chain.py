"""A chain as data: what is refused when it is made, and the chains of the repository."""

from pathlib import Path

import pytest

from launch import recipe_chain
from launch.recipe_chain import Recipe, Step
from launch.recipe_ledger import Ledger
from relic_jax.config import ConfigError

ROOT = Path(__file__).parents[2]
A = Step("a", ("m",), outputs=("x",))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Recipe(()), "the recipe has no steps"),
        (lambda: Recipe((A, Step("a", ("m",)))), "two steps are called a"),
        (lambda: Recipe((A, Step("b", ("m",), outputs=("./x/",)))), "steps a and b both make x"),
        (lambda: Recipe((Step("b", ("m",), ("x",)), A)), "step b needs x, which no earlier step makes and the recipe"),
        (lambda: Recipe((A, Step("b", ("m",), ("xy",)))), "step b needs xy, which no earlier step makes"),
        (lambda: Step("a-b", ("m",)), "step 'a-b': a name has letters, digits, _ only"),
        (lambda: Step("a", ()), "step a has no command"),
        (lambda: Step("a", "m --x"), "step a: command='m --x' must be a tuple of strings"),
        (lambda: Step("a", ("m",), "x"), "step a: inputs='x' must be a tuple of strings"),
        (lambda: Step("a", ("m",), share=-1), "step a: share=-1 must not be negative"),
    ],
)
def test_a_chain_is_checked_when_it_is_made(make, sentence):
    with pytest.raises(ConfigError) as error:
        make()
    assert str(error.value).startswith(sentence)


def test_inputs_may_lie_in_outputs():
    b, c = Step("b", ("m",), ("x/file", "y")), Step("c", ("m",))
    recipe = Recipe((A, b, c), given=("y",))
    assert recipe.before(b) == [A] and recipe.after("a") == {"a", "b"} and recipe.after("c") == {"c"}


@pytest.mark.parametrize("source", ["tiny.py", "wan.py", "wan.py:1_3b"])
def test_the_recipes_of_the_repository(source, monkeypatch):
    monkeypatch.chdir(ROOT)
    recipe = recipe_chain.load(f"recipes/{source}")
    assert [
        path for path in recipe.given if not path.startswith(("weights/", "data/")) and not Path(path).exists()
    ] == []
    # What a command reads and writes among the chain's own folders is declared.
    for step in recipe.steps:
        values = {word.partition("=")[2] for word in step.command}
        declared = {*step.inputs, *step.outputs, *recipe.given}
        assert {value for value in values if value.startswith(("data/", "runs/", "out/"))} <= declared
    after = {step.name: {one.name for one in recipe.before(step)} for step in recipe.steps}
    assert after["distill_20s"] >= {"teacher_20s", "distill_10s"} and after["demo"] == {"bundle"}


def test_the_toy_is_the_same_chain(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(ConfigError, match="start it in a folder of its own"):
        recipe_chain.load("recipes/tiny.py:toy")
    whole = recipe_chain.load("recipes/tiny.py")
    monkeypatch.chdir(tmp_path)
    toy = recipe_chain.load(f"{ROOT}/recipes/tiny.py:toy")
    assert [step.name for step in toy.steps] == [step.name for step in whole.steps]
    assert [step.outputs for step in toy.steps] == [step.outputs for step in whole.steps]
    assert not [step.name for step in toy.steps if not {"--clips=4", "--config.video.height=32"} & {*step.command}
                and "--config.model.video.height=32" not in step.command]  # fmt: skip


def test_one_length_of_the_toy_is_a_chain_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = recipe_chain.load(f"{ROOT}/recipes/tiny.py:toy_5s")
    assert len(recipe.steps) == 12
    assert not [word for step in recipe.steps for word in step.command if "20s" in word or "10s" in word]


def test_the_ledger_is_whole_or_not_there(tmp_path):
    ledger = Ledger(str(tmp_path))
    assert ledger.records == {}
    ledger.write()
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.json"] and Ledger(str(tmp_path)).records == {}
