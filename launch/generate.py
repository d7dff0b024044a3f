"""Makes a video from a picture, a sentence and a key script.

    python -m launch.generate --config=configs/tiny.py --image=PNG --prompt="..." --actions="w-32,wl-48,none-8" \\
        --seed=0 --out=out.mp4 [--sheet=out.png] [--json=FILE] [--checkpoint=DIR]
    python -m launch.generate --config=configs/tiny.py --replay=LOG.json --out=out.mp4 [--json=FILE] [--checkpoint=DIR]

Ctrl-C or SIGTERM ends the video with the block that is being made: the files have the frames there are, and the exit
code is 130 or 143. A second one ends at once and leaves no file.

W S dolly, A D truck, E Q pedestal up and down, I K tilt, J L pan, O U roll clockwise and back, `none` stands still.
--replay makes a recording of launch.serve again from its log, and says whether the frames are, bit for bit, those that
were recorded; they are on the same device with the same versions. Where they are not, the exit code is 1.

The JSON keys are frames, compile_s, steady_fps (generating, decoding and writing, without the first block; 0 when
there is only one) and peak_rss_bytes; of --replay: frames, identical.
"""

from __future__ import annotations

import itertools
import resource
import signal
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tqdm
from absl import flags
from jaxtyping import UInt8

import relic_jax
from launch import cli
from launch.generate_replay import Recording
from relic_jax import files, outside, picture, video
from relic_jax.camera import keys
from relic_jax.config import RelicConfig
from relic_jax.errors import InputError
from relic_jax.models import bundle, text
from relic_jax.signals import Interruption
from relic_jax.stream import rollout
from relic_jax.stream.session import Session

cli.config_flag("configs/tiny.py")
_IMAGE = flags.DEFINE_string("image", None, "picture to begin with")
_PROMPT = flags.DEFINE_string("prompt", None, "one sentence about the scene")
_ACTIONS = flags.DEFINE_string("actions", None, "key script, such as w-32,wl-48,none-8")
_SPEED = flags.DEFINE_float("speed", 1.0, "factor on every move and turn of the key script")
_SEED = flags.DEFINE_integer("seed", 0, "seed of all noise, from 0 to 2^64 - 1")
_OUT = flags.DEFINE_string("out", None, "the video to write, MP4", required=True)
_REPLAY = flags.DEFINE_string("replay", None, "the log of a recording to make again, in place of picture, prompt, keys")
_SHEET = flags.DEFINE_string("sheet", None, "a contact sheet to write, PNG")
_JSON = flags.DEFINE_string("json", None, "file for the measurements")
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", str(Path(relic_jax.__file__).parent / "assets" / "tiny"), "folder of the model"
)


def main(argv: Sequence[str]) -> int:
    del argv
    cfg = cli.load_config(RelicConfig)
    _check_files()
    if _REPLAY.value:
        return _replay(cfg, _REPLAY.value)
    script, image_file = cli.needed(_ACTIONS), cli.needed(_IMAGE)
    prompt = text.clean(cli.needed(_PROMPT))
    actions = keys.parse(script, _SPEED.value)
    seed = outside.seed(_SEED.value, "--seed")
    held = ["", *keys.held(script)]  # the picture, then a frame an action
    image, note = picture.read(image_file, cfg.video.height, cfg.video.width)
    model = bundle.load(_CHECKPOINT.value, cfg)
    notes = [*filter(None, [note]), *text.losses(model.tokenizer, cfg.text.length, prompt), *_rest(cfg, len(held))]
    for note in notes:
        print(f"note: {note}")

    begin = time.perf_counter()
    print("compiling, once; half a minute or so on a CPU ...", flush=True)
    session = Session.open(model, image, prompt, seed)
    chosen = video.evenly_spaced(len(held))
    shown, ready, stopped = _write(session.play(actions), len(held), cfg.video.fps, set(chosen))
    if _SHEET.value:
        chosen = chosen[: len(shown)]
        sheet = video.contact_sheet(np.stack(shown), [held[t] for t in chosen], chosen / cfg.video.fps)
        video.write_image(_SHEET.value, sheet)
    result = _measurements(begin, ready)
    if _JSON.value:
        cli.write_json(_JSON.value, result)
    if stopped:
        name, frames = signal.Signals(stopped).name, result["frames"]
        print(f"stopped by {name}: {_OUT.value} has the first {frames} of {len(held)} frames", file=sys.stderr)
        return 128 + stopped
    _report(result, cfg.video.fps)
    return 0


def _replay(cfg: RelicConfig, path: str) -> int:
    """Makes a recording again, and says whether it is the same."""
    for flag in (_IMAGE, _PROMPT, _ACTIONS, _SHEET):
        if flag.value is not None:
            raise InputError(f"--{flag.name} doesn't go with --replay: the log says all")
    recording = Recording.read(path)
    model = bundle.load(_CHECKPOINT.value, cfg)
    print("compiling, once; half a minute or so on a CPU ...", flush=True)
    with video.video_writer(_OUT.value, cfg.video.fps) as writer:
        for frames in tqdm.tqdm(recording.play(model), total=len(recording.blocks), unit=" blocks"):
            writer.write(frames)
    if _JSON.value:
        cli.write_json(_JSON.value, {"frames": recording.frames, "identical": recording.identical})
    print(f"{recording.frames} frames in {_OUT.value}")
    if recording.sha256 is None:
        print("note: the log doesn't say what its frames were")
        return 0
    if recording.identical:
        print("bit for bit those that were recorded")
        return 0
    then = ", ".join(f"{name} {value}" for name, value in recording.made_with.items())
    print(f"not bit for bit those that were recorded (with {then})", file=sys.stderr)
    return 1


def _rest(cfg: RelicConfig, frames: int) -> Iterator[str]:
    """What is made beyond the script: blocks are whole, and before the first stand the picture's four frames."""
    size = cfg.stream.block * rollout.FRAMES_PER_LATENT
    rest = -(frames - 1 + rollout.FRAMES_PER_LATENT) % size
    if rest:
        yield f"blocks have {size} frames: {rest} more are made after the script's, standing still, and left out"


def _check_files() -> None:
    outputs = {flag.name: flag.value for flag in (_OUT, _SHEET, _JSON)}
    for path in filter(None, outputs.values()):
        files.check_name(Path(path))
        cli.writable_directory(str(Path(path).parent))
    inputs = {flag.name: flag.value for flag in (_IMAGE, _CHECKPOINT, _REPLAY)}
    cli.check_outputs(outputs, inputs, {"out": (".mp4",), "sheet": (".png",)})


def _write(
    chunks: Iterable[UInt8[np.ndarray, "N H W 3"]], total: int, fps: int, chosen: set[int]
) -> tuple[list[UInt8[np.ndarray, "H W 3"]], list[tuple[int, float]], int]:
    """Writes the video as it comes, until it is whole or a signal comes: then it ends with the block at hand.

    Returns:
      The chosen frames, when how many frames were ready, chunk by chunk, and the signal; 0 when the video is whole.
    """
    shown, ready, done = [], [], 0
    chunks = iter(chunks)
    first = next(chunks)[:total]  # compiles; the bar's clock starts after it
    bar = tqdm.tqdm(total=total, initial=len(first), unit=" frames")
    with Interruption() as interruption, video.video_writer(_OUT.value, fps) as writer, bar:
        for chunk in itertools.chain([first], chunks):
            chunk = chunk[: total - done]
            writer.write(chunk)
            shown += [frame for t, frame in enumerate(chunk, done) if t in chosen]
            done += len(chunk)
            ready.append((done, time.perf_counter()))
            bar.update(done - bar.n)
            if interruption.signal:
                break
    return shown, ready, interruption.signal if done < total else 0


def _measurements(begin: float, ready: list[tuple[int, float]]) -> dict[str, int | float]:
    (first_frames, first), (frames, end) = ready[0], ready[-1]
    blocks = [after - before for (_, before), (_, after) in zip(ready, ready[1:], strict=False)]
    return {
        "frames": frames,
        "compile_s": first - begin - (statistics.median(blocks) if blocks else 0),
        "steady_fps": (frames - first_frames) / (end - first) if blocks else 0.0,
        "peak_rss_bytes": _peak_rss_bytes(),
    }


def _peak_rss_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _report(result: dict[str, int | float], fps: int) -> None:
    steady = f"{result['steady_fps']:.1f} frames a second" if result["steady_fps"] else "one block only"
    print(
        f"\n{result['frames']} frames, {result['frames'] / fps:.1f} s of video\n"
        f"  compiling        {result['compile_s']:.1f} s, once\n"
        f"  generating       {steady}, decoding and writing included, without the first block\n"
        f"  peak memory      {result['peak_rss_bytes'] / 2**20:.0f} MiB\n"
        f"  video            {_OUT.value}"
    )
    if _SHEET.value:
        print(f"  contact sheet    {_SHEET.value}")
    print(
        "\nGo on: give another --image or --prompt, or other keys, for example\n"
        '  --actions="w-32,wj-48,s-32"   W S A D E Q move, I K J L O U turn, keys together go together\n'
        "  --seed=1                      the same walk with other noise\n"
        "  --config.memory.mode=window   without the long memory: turn away and back, and compare"
    )


if __name__ == "__main__":
    cli.run(main)
