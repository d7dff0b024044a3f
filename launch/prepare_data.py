"""Makes data sets: clips of procedural worlds, a tokenizer of their captions, their latents.

    python -m launch.prepare_data world --clips=1200 --out=DIR [--frames=81] [--lead=0] [--seed=0] [--split=train] \
        [--world=room]
    python -m launch.prepare_data tokenizer --data=DIR --out=tokenizer.json [--config=configs/tiny.py]
    python -m launch.prepare_data latents --data=DIR --out=DIR --checkpoint=VAE_WORKDIR --tokenizer=tokenizer.json \
        [--text=text.safetensors] [--variants=1] [--palindromes=0] [--config=configs/tiny.py]

`world` renders clips of `frames` frames (81 are 5 s), each of a scene of its own. Another --seed makes other scenes, so
a held-out set needs one. --world: `room` is what the shipped model knows, `house` has rooms joined by doorways, made
of a finite library of named things. A path begins where there is much to see: --lead leaves out its first frames.
`latents` without --text uses a random text encoder, frozen (a tiny model has no pretrained one), and leaves it beside
the latents; its VAE has the size that --checkpoint was trained with. Both use all cores, `latents` the accelerator
where there is one. A command that was stopped goes on with the shards that are missing. Each takes --json=FILE.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tqdm
from absl import flags

from launch import cli
from relic_jax.data import builder, shards, workers, worlds
from relic_jax.errors import InputError

# The rendering processes import this file too, so what only one command needs is imported in its function.

SEED_SPAN = 1_000_000  # scenes of a --seed
_TEXT_SEED = 0

_OUT = flags.DEFINE_string("out", None, "folder (tokenizer: file) to write", required=True)
_JSON = flags.DEFINE_string("json", None, "file for the result: clips, clips_made, wall_s, clips_per_min, ...")
_CLIPS = flags.DEFINE_integer("clips", 1200, "world: clips of the split", lower_bound=1, upper_bound=SEED_SPAN)
_FRAMES = flags.DEFINE_integer("frames", 81, "world: frames of a clip, 4 L + 1", lower_bound=5)
_LEAD = flags.DEFINE_integer("lead", 0, "world: frames of a path before its clip begins", lower_bound=0)
_SEED = flags.DEFINE_integer("seed", 0, "world: which million of scenes", lower_bound=0, upper_bound=1_000_000)
_WORLD = flags.DEFINE_enum("world", worlds.DEFAULT, sorted(worlds.WORLDS), "world: which of the rendered worlds")
_HEIGHT = flags.DEFINE_integer("height", 64, "world: pixels", lower_bound=8)
_WIDTH = flags.DEFINE_integer("width", 96, "world: pixels", lower_bound=8)
_SPLIT = flags.DEFINE_string("split", "train", "world: name of the split")
_WORKERS = flags.DEFINE_integer("workers", None, "world, latents: processes; one a core unless given", lower_bound=1)
_DATA = flags.DEFINE_string("data", None, "tokenizer, latents: folder of the clips")
_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "latents: the VAE's workdir or safetensors file")
_TOKENIZER = flags.DEFINE_string("tokenizer", None, "latents: tokenizer.json")
_VARIANTS = flags.DEFINE_integer(
    "variants",
    1,
    "latents: records of each clip, the further ones backwards, mirrored or both",
    lower_bound=1,
    upper_bound=4,
)
_PALINDROMES = flags.DEFINE_float(
    "palindromes",
    0.0,
    "latents: share of the records that turn back in their second half and come home the way they went",
    lower_bound=0.0,
    upper_bound=1.0,
)
_TEXT = flags.DEFINE_string("text", None, "latents: the text encoder's safetensors file")


def world(argv: Sequence[str]) -> None:
    """Renders a split."""
    del argv
    if (_FRAMES.value - 1) % 4:
        raise InputError(f"--frames={_FRAMES.value}: expected 4 L + 1 frames, as the VAE takes them (81, 157, 317)")
    if not _SPLIT.value.isidentifier():
        raise InputError(f"--split={_SPLIT.value!r}: expected a name of letters, digits and underscores")
    split = shards.Split(_out(), _SPLIT.value, _CLIPS.value)
    recipe = builder.Recipe(
        _FRAMES.value, _HEIGHT.value, _WIDTH.value, _SEED.value * SEED_SPAN, _LEAD.value, _WORLD.value
    )
    started = time.monotonic()
    made = workers.write(split, recipe, _WORKERS.value or len(workers.cores()))
    wall_s = time.monotonic() - started
    _report(split, made, wall_s, {"frames": made * recipe.frames, "render_fps": made * recipe.frames / wall_s})


def train_tokenizer(argv: Sequence[str]) -> None:
    """Trains a tokenizer on the captions of clips."""
    del argv
    from relic_jax.config import RelicConfig
    from relic_jax.data import loader
    from relic_jax.models import tokenizer

    cfg = cli.load_config(RelicConfig)
    cli.check_outputs({"out": _OUT.value, "json": _JSON.value}, {"data": _DATA.value})
    clips = loader.Clips(cli.needed(_DATA))
    captions = [clips.caption(i) for i in tqdm.trange(len(clips), unit="clip", desc="captions")]
    trained = tokenizer.train(captions, cfg.text.vocab)
    trained.save(_OUT.value)
    longest = int(trained(captions, cfg.text.length)[1].sum(1).max())
    print(f"{_OUT.value}: {trained.vocab} ids, captions of up to {longest} of {cfg.text.length} tokens")
    if _JSON.value:
        cli.write_json(_JSON.value, {"vocab": trained.vocab, "clips": len(clips), "longest_caption": longest})


def encode_latents(argv: Sequence[str]) -> None:
    """Encodes every split of a clip data set."""
    del argv
    import jax
    import numpy as np

    from relic_jax.config import RelicConfig, VAEConfig, from_config_dict
    from relic_jax.data import latents, loader
    from relic_jax.models import module, tokenizer, weights
    from relic_jax.models.umt5 import text_encoder
    from relic_jax.models.vae import VAE
    from relic_jax.train import checkpoint

    cfg = cli.load_config(RelicConfig)
    data, checkpoint_path, tokenizer_path = cli.needed(_DATA), cli.needed(_CHECKPOINT), cli.needed(_TOKENIZER)
    out = _out()
    trained = (checkpoint.recorded(checkpoint_path) or {}).get("model", {}).get("vae")
    if trained:  # a run knows its VAE; the configuration's is what ships, which may have grown since
        cfg = dataclasses.replace(cfg, vae=from_config_dict(VAEConfig, trained, "config.model.vae"))
    params = {
        "vae": checkpoint.load_params(checkpoint_path, module.abstract(VAE, cfg.vae)),
        "text": checkpoint.load_params(_TEXT.value, module.abstract(text_encoder, cfg.text))
        if _TEXT.value
        else module.init(text_encoder, cfg.text, jax.random.key(_TEXT_SEED)),
    }
    tokens = tokenizer.load(tokenizer_path)
    weights.save_safetensors(out / "text.safetensors", params["text"], {"format": "relic-jax"})
    tokens.save(out / "tokenizer.json")
    made_from = {
        "data": str(Path(data).resolve()),
        "weights": latents.fingerprint(params),
        "vae": dataclasses.asdict(cfg.vae),
        "variants": _VARIANTS.value,
    }
    if _PALINDROMES.value:
        made_from["palindromes"] = _PALINDROMES.value
    params = jax.tree.map(np.asarray, params)  # what other processes can be given
    encoding = latents.Encoding(data, params, cfg, tokens, made_from, _VARIANTS.value, _PALINDROMES.value)
    clips = loader.Clips(data)
    split = shards.Split(out, clips.split, len(clips) * _VARIANTS.value)
    started = time.monotonic()
    # An accelerator is faster than all cores together, and it is one process's.
    processes = _WORKERS.value or (len(workers.cores()) if jax.default_backend() == "cpu" else 1)
    made = workers.write(split, encoding, processes)
    _report(split, made, time.monotonic() - started, {})


def _report(split: shards.Split, made: int, wall_s: float, more: dict[str, Any]) -> None:
    print(f"{split.directory}: split '{split.name}' has {split.records} clips; {made} made in {wall_s:.1f} s")
    if _JSON.value:
        size = sum(split.path(i).stat().st_size for i in range(len(split.shards)))
        values = {"clips": split.records, "clips_made": made, "wall_s": wall_s, "clips_per_min": 60 * made / wall_s}
        cli.write_json(_JSON.value, {**values, "size_bytes": size, **more})


def _out() -> Path:
    if _JSON.value:
        cli.check_writable(_JSON.value)
    return cli.writable_directory(_OUT.value)


COMMANDS = {"world": world, "tokenizer": train_tokenizer, "latents": encode_latents}

if __name__ == "__main__":
    cli.run_commands(COMMANDS, configured={"tokenizer": "configs/tiny.py", "latents": "configs/tiny.py"})
