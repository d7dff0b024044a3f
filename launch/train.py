"""Trains one stage, from its newest checkpoint if the workdir has one.

    python -m launch.train --config=configs/tiny_vae.py --workdir=runs/tiny_vae [--config.steps=100] [--json=FILE]

Exits with 0 when the run is complete, 128 + the signal's number when SIGTERM or Ctrl-C stopped it (the same
command resumes it), 1 when the loss is not finite, 2 on bad input.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from absl import flags

from launch import cli
from relic_jax.train import loop, stage

cli.config_flag("configs/tiny_vae.py")
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of checkpoints, metrics and samples", required=True)
_JSON = flags.DEFINE_string("json", None, "file for the result: steps, loss, steps_per_s, compile_s, wall_s, ...")


def main(argv: Sequence[str]) -> int:
    del argv
    cfg = cli.load_config(stage.TrainConfig)
    workdir = cli.writable_directory(_WORKDIR.value)
    if _JSON.value:
        cli.check_writable(_JSON.value)
    try:
        result = loop.train(cfg, stage.make(cfg), workdir)
    except FloatingPointError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if result["signal"]:
        print(f"stopped and saved at step {result['steps']} of {cfg.steps}; the same command resumes", file=sys.stderr)
        return 128 + int(result["signal"])
    print(f"{cfg.stage}: {result['steps']} steps, loss {result['loss']:.4g}; weights in {workdir}")
    if _JSON.value:
        cli.write_json(_JSON.value, result)
    return 0


if __name__ == "__main__":
    cli.run(main)
