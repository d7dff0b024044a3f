"""What `launch.plan` measures and prints."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import jax

from launch import plan_tasks
from relic_jax.errors import InputError
from relic_jax.ops.attention import LOGITS
from relic_jax.parallel import hlo
from relic_jax.parallel import mesh as meshes
from relic_jax.parallel.hardware import GPU, absent_devices
from relic_jax.parallel.mesh import MeshShape

Figures = dict[str, bool | int | float | str]
_BOUNDS = ("bound", "fused_bound")


def measure(
    cfg: plan_tasks.Config, task: str, gpu: GPU, shape: MeshShape, devices: Sequence[Any], batch: int | None
) -> Figures:
    """Compiles a task for these devices and reads what came out.

    Args:
      task: one of `plan_tasks.TASKS`. gpu: whose memory and rates count.
      devices: to compile for; virtual CPU devices do as well, where only the exchange matters.
      batch: samples a call, by default one for each device of `data` and `fsdp`.

    Raises:
      InputError: the mesh can't divide the model or the batch.
    """
    batch = batch or shape.data * shape.fsdp
    mesh, begun = meshes.make(shape, devices), time.perf_counter()
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # the devices aren't there: nothing may run on them
        program = plan_tasks.TASKS[task](cfg, mesh, batch)
        lowered = program.function.trace(*program.arguments).lower(lowering_platforms=(_platform(devices[0]),))
        compiled = lowered.compile()
    memory, text = compiled.memory_analysis(), compiled.as_text()
    found = hlo.Program(text, trips=program.trips)
    given = plan_tasks.device_bytes(program.arguments)  # those that XLA dropped because nothing uses them lie there too
    taken = given + memory.output_size_in_bytes - memory.alias_size_in_bytes
    peak = taken + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
    kinds = {f"{name}_bytes": plan_tasks.device_bytes(tree) for name, tree in program.kinds.items()}
    times = _times(found, gpu)
    figures = {
        "task": task,
        "device": gpu.name,
        "devices": shape.devices,
        "mesh": str(shape),
        "batch": batch,
        "unit": program.unit,
        "fits": peak <= gpu.usable_bytes,
        "peak_bytes": peak,
        "memory_bytes": gpu.memory_bytes,
        "usable_bytes": gpu.usable_bytes,
        **kinds,
        "temp_bytes": memory.temp_size_in_bytes,
        "flops": sum(found.flops.values()),
        "moved_bytes": found.bytes_moved(),
        "logits_bytes": found.bytes_moved(LOGITS),
        **_collectives(found),
        **times,
        "calls": program.calls,
    }
    usual = times
    if program.dear_every > 1:
        usual = _times(hlo.Program(text, trips=program.trips, rarely=False), gpu)
        figures |= {"dear_every": program.dear_every, **{f"usual_{name}_s": usual[f"{name}_s"] for name in _BOUNDS}}
    for name in _BOUNDS:
        if program.frames:
            figures[f"{name}_fps"] = program.frames / times[f"{name}_s"]
        if program.calls:
            rest = (program.dear_every - 1) * usual[f"{name}_s"]
            figures[f"{name}_days"] = program.calls * (times[f"{name}_s"] + rest) / program.dear_every / 86400
    return figures | {"compile_s": time.perf_counter() - begun}


def _times(found: hlo.Program, gpu: GPU) -> dict[str, float]:
    """Seconds of arithmetic, memory traffic and messages, each as fast as can be, and the longest of them."""
    times = {
        "compute_s": sum(flops / gpu.flops(dtype) for dtype, flops in found.flops.items()),
        "memory_s": found.bytes_moved() / gpu.memory_rate,
        "links_s": sum(_seconds(gpu, c) for c in found.collectives),
    }
    fused = times | {"memory_s": times["memory_s"] - found.bytes_moved(LOGITS) / gpu.memory_rate}
    return times | {"bound_s": max(times.values()), "fused_bound_s": max(fused.values())}


def sweep(cfg: plan_tasks.Config, task: str, gpu: GPU, devices: int, batch: int | None) -> Figures:
    """Every mesh of so many devices, what fits first, then by the bound; the best's figures, and a few of each.

    Raises:
      InputError: no mesh can divide the model or the batch.
    """
    shapes = plan_tasks.meshes(task, devices)
    rows, refused = [], []
    for shape in shapes:
        try:
            rows.append(measure(cfg, task, gpu, shape, absent_devices(gpu, shape), batch))
            print(f"compiled {shape} in {rows[-1]['compile_s']:.0f} s", file=sys.stderr)
        except InputError as error:
            refused.append((str(shape), error))
    if not rows:
        raise InputError(f"no mesh of {shapes[0].devices} devices can divide this: {refused[0][1]}")
    rows.sort(key=lambda row: (not row["fits"], row["bound_s"] / row["batch"]))
    print(f"{'mesh':28s}{'batch':>6s}{'fits':>6s}{'peak GiB':>10s}{'compute s':>11s}{'memory s':>10s}{'links s':>9s}")
    for row in rows:
        times = f"{row['compute_s']:11.3f}{row['memory_s']:10.3f}{row['links_s']:9.3f}"
        fits, peak = "yes" if row["fits"] else "no", row["peak_bytes"] / 2**30
        print(f"{row['mesh']:28s}{row['batch']:6d}{fits:>6s}{peak:10.1f}{times}")
    for name, error in refused:
        print(f"{name:28s}  {error}")
    print(f"\n{table(rows[0], gpu)}")
    some = ("fits", "peak_bytes", "bound_s")
    return rows[0] | {f"{row['mesh']}.{key}": row[key] for row in rows for key in some}


def table(figures: Figures, gpu: GPU) -> str:
    """The figures for people."""
    unit, kinds = figures["unit"], ("weights", "optimizer", "ema", "critic", "teacher", "vae", "cache", "batch", "temp")
    lines = [
        f"{figures['task']} on {figures['devices']} x {gpu.name}, mesh {figures['mesh']}, batch {figures['batch']}",
        "",
        "memory of a device, GiB",
        *(f"  {k:12s}{figures[f'{k}_bytes'] / 2**30:10.2f}" for k in kinds if f"{k}_bytes" in figures),
        f"  {'peak':12s}{figures['peak_bytes'] / 2**30:10.2f}   of {gpu.usable_bytes / 2**30:.1f} "
        f"({gpu.memory_bytes / 2**30:.1f} less {gpu.reserved_bytes / 2**30:.0f} for CUDA and NCCL): "
        + ("fits" if figures["fits"] else "does NOT fit"),
        "",
        f"work of a device, a {unit}",
        f"  {'arithmetic':20s}{figures['flops'] / 1e12:12.2f} TFLOP",
        f"  {'memory traffic':20s}{figures['moved_bytes'] / 1e9:12.1f} GB, "
        f"{figures['logits_bytes'] / 1e9:.1f} of it logits",
    ]
    for key in figures:
        if key.startswith("collectives.") and key.endswith(".count"):
            kind = key.split(".")[1]
            sent = figures[f"collectives.{kind}.bytes"] / 1e9
            lines.append(f"  {kind:20s}{sent:12.3f} GB sent, {figures[key]} times")
    times = ", ".join(f"{name} {figures[f'{name}_s']:.3f}" for name in ("compute", "memory", "links"))
    lines += ["", f"at best, seconds a {unit}: {times}"]
    for name, what in (("bound", "as compiled"), ("fused_bound", "logits kept on the chip, by a fused attention")):
        line = f"  {figures[f'{name}_s']:8.3f} s or more"
        if f"{name}_fps" in figures:
            line += f", {figures[f'{name}_fps']:.1f} FPS or fewer"
        if "dear_every" in figures:
            line += f" (every {figures['dear_every']}th; the others {figures[f'usual_{name}_s']:.3f})"
        if f"{name}_days" in figures:
            line += f", {figures['calls']} steps {figures[f'{name}_days']:.1f} days or more"
        lines.append(f"{line}: {what}")
    return "\n".join([*lines, "  (bounds, not measurements: nothing was run)"])


def _collectives(found: hlo.Program) -> Figures:
    figures: Figures = {}
    for c in found.collectives:
        for key, value in ((f"collectives.{c.kind}.count", c.count), (f"collectives.{c.kind}.bytes", c.bytes)):
            figures[key] = figures.get(key, 0) + value
    return figures


def _seconds(gpu: GPU, collective: hlo.Collective) -> float:
    """A collective's messages at full speed: inside a machine, and what must leave it, over all of its adapters."""
    sent, devices = collective.bytes, collective.groups.shape[-1]
    machines = max(len(set(group // gpu.machine)) for group in collective.groups)
    if machines == 1:
        return sent / gpu.link_rate
    crossing = {
        "collective-permute": 1.0,
        "all-to-all": (devices - devices / machines) / (devices - 1),
    }.get(collective.kind, (machines - 1) / (devices - 1))  # gathered or reduced inside each machine first
    return max(sent / gpu.link_rate, sent * crossing / gpu.network_rate)


def _platform(device: Any) -> str:
    return "cpu" if device.platform == "cpu" else "cuda"
