"""The paper's chain at the size of the tiny model: from rendered rooms to a student that streams.

Command:  python -m launch.recipe recipes/tiny.py [--minutes=M]
          In a folder of its own, a few small clips and a few steps each, to see that it all works:
          mkdir -p out/toy && cd out/toy && python -m launch.recipe ../../recipes/tiny.py:toy     (or :toy_5s)
Hardware: any CPU with 2 cores: hours; toy: minutes.
Result:   out/tiny, a bundle; out/tiny_world and out/tiny_revisit, what it measures; out/tiny_demo.mp4; and
          runs/recipe_report/report.md. Everything lies below the folder where it is started.
"""

import dataclasses
from pathlib import Path

from launch.recipe_chain import Recipe, Step, train
from relic_jax.config import ConfigError

REPOSITORY = Path(__file__).resolve().parents[1]
HERE = "" if Path.cwd() == REPOSITORY else f"{REPOSITORY}/"  # for files of the repository
# The shipped model's VAE has one more residual block at its finer levels, which this chain's has not.
MODEL = (f"--config={HERE}configs/tiny.py", "--config.vae.extra_res_blocks=()")
CARD, PICTURE = f"{HERE}recipes/card.md", f"{HERE}relic_jax/assets/demo/room.png"
PROMPT = "a medium room with striped blue walls, a checked orange floor and a cream ceiling, five pictures on the walls"
KEYS = "w-16,l-48,j-48,d-24,a-23"

VAE, TOKENIZER, TEXT = "runs/tiny_vae_long", "data/tokenizer.json", "data/train_latents/text.safetensors"
STUDENT, BUNDLE = "runs/tiny_distill_20s", "out/tiny"
ROOMS = ("data/train", "data/val")  # walks of 10 s, which serve 5 s too
LATENTS = ("data/train_latents", "data/val_latents", VAE)
LATENTS_20S = ("data/train_latents_20s", "data/val_latents_20s", VAE)


def get_recipe(size: str = "") -> Recipe:
    """The chain. `size`: nothing; `toy`, small and soon done; or `toy_5s`, one length of each stage of it."""
    if size not in ("", "toy", "toy_5s"):
        raise ConfigError(f"its argument is {size!r}, expected nothing, toy or toy_5s")
    if size and not HERE:
        raise ConfigError("the toy would get in the real one's way here; start it in a folder of its own")
    steps = (
        # Clips of rooms.
        _clips("train", "--clips=1600", "--frames=157"),
        _clips("val", "--clips=64", "--frames=157", "--seed=800", "--split=val"),
        _clips("train_20s", "--clips=384", "--frames=317", "--seed=1"),
        _clips("val_20s", "--clips=16", "--frames=317", "--seed=801", "--split=val"),
        # What pictures are made of.
        _train("vae_short", ROOMS, share=30),
        _train("vae_long", (*ROOMS, "runs/tiny_vae_short"), share=40),
        Step(
            "tokenizer",
            ("launch.prepare_data", "tokenizer", *MODEL, "--data=data/train", f"--out={TOKENIZER}"),
            inputs=("data/train",),
            outputs=(TOKENIZER,),
        ),
        _latents("train", "--palindromes=0.25"),  # also makes the text encoder that the others use
        _latents("val", f"--text={TEXT}"),
        _latents("train_20s", f"--text={TEXT}", "--palindromes=0.5"),
        _latents("val_20s", f"--text={TEXT}"),
        # The bidirectional teacher, in three lengths.
        _train("teacher_5s", LATENTS, share=25),
        _train("teacher_10s", (*LATENTS, "runs/tiny_teacher_5s"), share=12),
        _train("teacher_20s", (*LATENTS_20S, "runs/tiny_teacher_10s"), share=12),
        # The student's start: block-causal, then on the teacher's trajectories. These are of use only when all are
        # there, and so have no share of the minutes.
        _train("causal", (*LATENTS_20S, "runs/tiny_teacher_20s"), share=40),
        _train("ode_data", ("data/train_latents_20s", "runs/tiny_teacher_20s")),
        _train("ode", ("runs/tiny_ode_data", "data/val_latents_20s", VAE, "runs/tiny_causal"), share=8),
        # Distillation on its own rollouts, each length by the teacher of that length.
        _train("distill_5s", (*LATENTS, "runs/tiny_teacher_5s", "runs/tiny_ode"), share=14),
        _train("distill_10s", (*LATENTS, "runs/tiny_teacher_10s", "runs/tiny_distill_5s"), share=10),
        _train("distill_20s", (*LATENTS_20S, "runs/tiny_teacher_20s", "runs/tiny_distill_10s"), share=12),
        # What came of it.
        Step(
            "bundle",
            (
                *("launch.export", "bundle", *MODEL, f"--dit={STUDENT}", f"--vae={VAE}", f"--text={TEXT}"),
                *(f"--tokenizer={TOKENIZER}", f"--card={CARD}", "--dtype=bfloat16", f"--out={BUNDLE}"),
            ),
            inputs=(STUDENT, VAE, TEXT, TOKENIZER, CARD),
            outputs=(BUNDLE,),
        ),
        _evaluate("world", "--scenes=32"),
        _evaluate("revisit", "--scenes=24"),
        Step(
            "demo",
            (
                *("launch.generate", *MODEL, f"--checkpoint={BUNDLE}", f"--image={PICTURE}", f"--prompt={PROMPT}"),
                *(f"--actions={KEYS}", "--seed=0", "--out=out/tiny_demo.mp4", "--sheet=out/tiny_demo.png"),
            ),
            inputs=(BUNDLE, PICTURE),
            outputs=("out/tiny_demo.mp4", "out/tiny_demo.png"),
            json="out/tiny_demo.json",
        ),
    )
    if size:
        steps = tuple(map(_toy, steps))
    if size == "toy_5s":
        steps = tuple(_one_length(step) for step in steps if step.name in _ONE_LENGTH)
    return Recipe(steps, given=(CARD, PICTURE))


def _clips(name: str, *more: str) -> Step:
    out = f"data/{name}"
    command = ("launch.prepare_data", "world", *more, f"--out={out}")
    return Step(f"clips_{name}", command, outputs=(out,), json=f"{out}.json")


def _latents(name: str, *more: str) -> Step:
    split, _, length = name.partition("_")
    out = "_".join(filter(None, (f"data/{split}_latents", length)))
    given = (f"--data=data/{name}", f"--checkpoint={VAE}", f"--tokenizer={TOKENIZER}", *more)
    inputs = (f"data/{name}", VAE, TOKENIZER, *((TEXT,) if f"--text={TEXT}" in more else ()))
    command = ("launch.prepare_data", "latents", *MODEL, *given, f"--out={out}")
    return Step(f"latents_{name}", command, inputs, (out,), json=f"{out}.json")


def _train(name: str, inputs: tuple[str, ...], share: float = 0.0) -> Step:
    """A stage. Its configuration says which of the inputs is what."""
    stage, length = name, ""
    if name.startswith(("vae_", "teacher_", "distill_")):
        stage, length = name.split("_")
    config = f"{HERE}configs/tiny_{stage}.py" + (f":{length}" if length else "")
    return train(name, config, f"runs/tiny_{name}", inputs, share=share)


def _evaluate(name: str, *more: str) -> Step:
    out = f"out/tiny_{name}"
    command = ("launch.evaluate", name, *MODEL, f"--checkpoint={BUNDLE}", *more, f"--out={out}")
    return Step(name, command, (BUNDLE,), (out,), json=f"{out}.json")


# What `toy` appends to the commands; the last of two equal flags holds. Clips of 12 latents: three blocks, of which the
# last one remembers.
_SMALL = (
    *("video.height=32", "video.width=48", "vae.base_dim=4", "vae.multipliers=(1,1,1)"),
    *("dit.dim=32", "dit.ffn_dim=48", "dit.heads=2", "dit.layers=2", "dit.cond_dim=16", "dit.freq_dim=16"),
)
_SMALL_MODEL = tuple(f"--config.{change}" for change in _SMALL)
_SMALL_STAGE = tuple(f"--config.model.{change}" for change in _SMALL)
_SMALL_TEACHER = tuple(f"--config.terms.score.teacher_{change}" for change in _SMALL if change.startswith("dit."))
_FEW_STEPS = tuple(
    f"--config.{change}"
    for change in ("steps=2", "batch=2", "optimizer.warmup=0", "log_every=1", "sample_every=2", "save_every=1")
)
_DISTILL = ("--config.generator_every=2", "--config.micro_batch=2", "--config.stop_on_collapse=False")
_TOY = {
    "clips": ("--clips=4", "--frames=45", "--height=32", "--width=48"),
    "tokenizer": _SMALL_MODEL,
    "latents": _SMALL_MODEL,
    "vae": (*_SMALL_STAGE, *_FEW_STEPS, "--config.frames=9"),
    "teacher": (*_SMALL_STAGE, *_FEW_STEPS, "--config.frames=45"),
    "causal": (*_SMALL_STAGE, *_FEW_STEPS, "--config.frames=45"),
    "ode_data": (*_SMALL_STAGE, "--config.clips=2", "--config.frames=45", "--config.steps=4", "--config.workers=1"),
    "ode": (*_SMALL_STAGE, *_FEW_STEPS, "--config.frames=45"),
    "distill": (*_SMALL_STAGE, *_SMALL_TEACHER, *_FEW_STEPS, *_DISTILL, "--config.frames=45"),
    "bundle": _SMALL_MODEL,
    "world": (*_SMALL_MODEL, "--scenes=4"),
    "revisit": (*_SMALL_MODEL, "--scenes=2"),
    "demo": (*_SMALL_MODEL, "--actions=w-16,l-16"),
}


def _toy(step: Step) -> Step:
    """A step at toy size."""
    kind = step.name if step.name in _TOY else step.name.partition("_")[0]
    return dataclasses.replace(step, command=(*step.command, *_TOY[kind]))


# The steps of `toy_5s`, with what they take from steps that it leaves out: RoPE is not stretched for 20 s.
_UNSTRETCHED = "--config.model.dit.yarn_scale=1.0"
_SHORT_VAE = "--config.vae=runs/tiny_vae_short"
_ONE_LENGTH = dict.fromkeys(
    ("clips_train", "clips_val", "vae_short", "tokenizer", "latents_train", "latents_val", "bundle", "demo"), ()
) | {
    "teacher_5s": (_SHORT_VAE,),
    "ode_data": ("--config.teacher=runs/tiny_teacher_5s", "--config.data=data/train_latents", _UNSTRETCHED),
    "ode": (_SHORT_VAE, "--config.init_from=runs/tiny_teacher_5s", "--config.data_val=data/val_latents", _UNSTRETCHED),
    "distill_5s": (_SHORT_VAE,),
}
_INSTEAD = {
    "vae_long": "vae_short",
    "teacher_20s": "teacher_5s",
    "causal": "teacher_5s",
    "distill_20s": "distill_5s",
    "latents_20s": "latents",
}


def _one_length(step: Step) -> Step:
    """A step of the chain without the longer lengths."""

    def shorter(words: tuple[str, ...]) -> tuple[str, ...]:
        for name, other in _INSTEAD.items():
            words = tuple(word.replace(name, other) for word in words)
        return tuple(dict.fromkeys(words))

    command = (*shorter(step.command), *_ONE_LENGTH[step.name])
    return dataclasses.replace(step, command=command, inputs=shorter(step.inputs))
