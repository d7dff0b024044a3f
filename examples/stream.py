"""Walk through the shipped world from Python: play, save, branch.

    python -m examples.stream [FOLDER]

Writes walk.mp4, the same walk going on twice with other noise, and the session's file into FOLDER (out/).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import relic_jax
from relic_jax import Session, load, video

ASSETS = Path(relic_jax.__file__).parent / "assets"


def main(folder: Path, keys: str = "w-28,wl-32") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    model = load(ASSETS / "tiny")
    session = Session.open(model, ASSETS / "demo" / "room.png", "a room with striped blue walls", seed=0)
    with video.video_writer(folder / "walk.mp4", model.config.video.fps) as writer:
        for frames in session.play(keys):  # uint8 [16, 64, 96, 3], a second at a time; the first chunk has 13
            writer.write(frames)
    session.save(folder / "walk.safetensors")  # a few MB: memory, window, pose, random key

    later = Session.load(folder / "walk.safetensors", model)  # bit for bit where it was
    other = later.branch(seed=1)  # the same past, another future
    ends = [np.concatenate(list(one.play("j-16"))) for one in (later, other)]
    with video.video_writer(folder / "two_futures.mp4", model.config.video.fps) as writer:
        writer.write(np.concatenate(ends, axis=2))  # side by side
    position = later.pose[1]
    print(f"{later.frames} frames; the camera stands {np.linalg.norm(position):.2f} m from where it began")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out"))
