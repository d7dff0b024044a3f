"""What this machine has and lacks to run the model: devices, drivers, versions, free memory."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from launch import cli

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "av")
_PLUGINS = ("jax-cuda12-plugin", "jax-cuda13-plugin")
_DRIVER, _MEMORY = Path("/proc/driver/nvidia/version"), Path("/proc/meminfo")


def main(argv: Sequence[str]) -> int:
    """Prints the report; 0 whatever it says."""
    del argv
    for part in (machine, versions, devices, missing):
        lines = part()
        while True:
            try:
                print(next(lines), flush=True)
            except StopIteration:
                break
            except Exception as error:  # whatever is broken here is what a person asks about
                print(f"{part.__name__:10s} can't be told: {type(error).__name__} {cli.first_line(error)}".rstrip())
                break
    return 0


def machine() -> Iterator[str]:
    yield f"machine    {platform.machine()}, {platform.system()}, {os.cpu_count()} cores"
    disk = shutil.disk_usage(".")
    if _MEMORY.exists():
        memory = dict(line.split(":") for line in _MEMORY.read_text().splitlines() if ":" in line)
        free, total = (int(memory[key].split()[0]) / 2**20 for key in ("MemAvailable", "MemTotal"))
        yield f"memory     {free:.1f} of {total:.1f} GiB free"
    yield f"disk       {disk.free / 2**30:.1f} of {disk.total / 2**30:.1f} GiB free here"
    driver = _DRIVER.read_text().splitlines()[0] if _DRIVER.exists() else "none (no GPU of NVIDIA's, or no driver)"
    yield f"driver     {driver}"


def versions() -> Iterator[str]:
    found = ", ".join(f"{name} {version}" for name in (*_PACKAGES, *_PLUGINS) if (version := _version(name)))
    yield f"versions   python {platform.python_version()}, {found}"


def devices() -> Iterator[str]:
    import jax

    try:
        found = jax.devices()
    except Exception as error:  # an AssertionError without words, where the platform that is asked for isn't there
        yield f"devices    none: {cli.no_platform(error) or cli.first_line(error)}"
        return
    for device in found:
        stats = device.memory_stats() or {}
        free = (stats.get("bytes_limit", 0) - stats.get("bytes_in_use", 0)) / 2**30
        memory = f", {free:.1f} GiB free" if stats else ""
        yield f"device {device.id:3d} {device.platform} {device.device_kind}{memory}"


def missing() -> Iterator[str]:
    plugin = any(_version(name) for name in _PLUGINS)
    if not plugin:
        yield "missing    JAX's CUDA plugin: pip install 'relic-jax[cuda12]' or [cuda13]; launch.plan needs it"
    if plugin and not _DRIVER.exists():
        yield "missing    a GPU: programs run on the CPU here; launch.plan compiles for GPUs all the same"
    for name in _PACKAGES:
        if not _version(name):
            yield f"missing    {name}: pip install -c constraints.txt -e ."


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
