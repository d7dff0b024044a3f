"""Says, on a machine without a GPU, whether a model fits on so many GPUs and how fast it can be at best.

    python -m launch.plan --config=configs/relic_14b.py --device=h100 --mesh=seq=4 --task=stream [--json=FILE]
    python -m launch.plan --config=configs/relic_14b.py --device=h100 --mesh=fsdp=8,seq=4 --task=teacher
    python -m launch.plan --config=configs/relic_14b.py --device=h100 --mesh=seq=4 --task=stream --sweep
    python -m launch.plan doctor

The real jitted function is compiled for that many real devices (`relic_jax.parallel.hardware`), and what XLA made of
it is read: its memory, and its instructions with how often each runs. Needs JAX's CUDA plugin, the extra `cuda12` or
`cuda13`, and no driver.

Tasks: `stream`, a block with full memory; `teacher`, `ode`, `distill`, a training step; `ode_data`, trajectories from
beginning to end; `vae`, decoding a block.
--config describes a model, or a training run: then its mesh, batch, frames, optimizer and steps are what is compiled,
unless flags say otherwise. --batch is what one call has on all devices, for a model by default one sample for each
device of `data` and `fsdp`. --sweep tries every mesh of as many devices and ranks them.

JSON keys: fits, peak_bytes, weights_bytes, cache_bytes, optimizer_bytes, ema_bytes, critic_bytes (its optimizer's state
too), teacher_bytes, vae_bytes (for held-out samples), batch_bytes, temp_bytes, memory_bytes (all of a device's),
usable_bytes, flops and moved_bytes (a device, a call), collectives.<kind>.count, collectives.<kind>.bytes (sent by a
device), logits_bytes (of moved_bytes), compute_s, memory_s, links_s, bound_s, bound_fps, bound_days, and the same with
fused_ before it, device, devices, mesh, batch, task, calls, compile_s; with --sweep those of the best, and <mesh>.fits,
<mesh>.peak_bytes, <mesh>.bound_s of all.

`bound_s` is the longest of three times: the program's arithmetic at the chip's peak, its messages at full speed of the
links, its memory traffic at full bandwidth (operands and results of each instruction, as if no cache held any).
`fused_bound_s` leaves out the traffic of attention's logits, which a fused kernel keeps on the chip. These are bounds,
not measurements: nothing was run.

A step of `distill` is one in which the student learns as well as the critic, after a rollout of all evaluations. Only
every `dear_every`th is: `usual_bound_s` is for the others, and `bound_days` counts both as often as they come.

Exits with 0 if it fits, 1 if not, 2 on bad input.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import jax
from absl import flags

from launch import cli, plan_doctor
from relic_jax.config import RelicConfig
from relic_jax.data.trajectories import TrajectoryConfig
from relic_jax.errors import InputError
from relic_jax.parallel import hardware
from relic_jax.parallel.mesh import MeshShape
from relic_jax.train import run

_DEVICE = flags.DEFINE_string("device", "h100", f"what to compile for: {', '.join(hardware.GPUS)}")
_MESH = flags.DEFINE_string("mesh", "", "axes of the mesh, as in fsdp=8,seq=4; empty: one device")
_TASK = flags.DEFINE_string("task", "stream", "what runs: stream, teacher, ode_data, ode, distill or vae")
_BATCH = flags.DEFINE_integer("batch", None, "samples a call, on all devices", lower_bound=1)
_SWEEP = flags.DEFINE_bool("sweep", False, "try every mesh of as many devices")
_JSON = flags.DEFINE_string("json", None, "file for the figures")


def main(argv: Sequence[str]) -> int:
    del argv
    jax.config.update("jax_platforms", "cpu")  # a GPU that is there isn't needed either
    from launch import plan_report, plan_tasks

    stage = flags.FLAGS.config.get("stage")
    models = {None: RelicConfig, "ode_data": TrajectoryConfig}
    cfg: plan_tasks.Config = cli.load_config(models[stage] if stage in models else run.config_class(stage))
    cli.check_outputs({"json": _JSON.value}, {})
    if _TASK.value not in plan_tasks.TASKS:
        raise InputError(f"--task={_TASK.value} is not one of {', '.join(plan_tasks.TASKS)}")
    gpu, shape = hardware.find(_DEVICE.value), MeshShape.parse(_MESH.value or getattr(cfg, "mesh", ""))
    batch = _BATCH.value or getattr(cfg, "batch", None)
    if _SWEEP.value:
        figures = plan_report.sweep(cfg, _TASK.value, gpu, shape.devices, batch)
    else:
        devices = hardware.absent_devices(gpu, shape)
        figures = plan_report.measure(cfg, _TASK.value, gpu, shape, devices, batch)
        print(plan_report.table(figures, gpu))
    if _JSON.value:
        cli.write_json(_JSON.value, figures)
    return 0 if figures["fits"] else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["doctor"]:
        del sys.argv[1]
        cli.run(plan_doctor.main)
    else:
        cli.config_flag("configs/relic_14b.py")
        cli.run(main)
