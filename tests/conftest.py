"""Every test runs on the CPU, in 32 bits, with shapes and types of all annotated functions checked."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Eight devices for the tests of meshes; all others use the first. Programs that tests start see the same.
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count=8 {os.environ.get('XLA_FLAGS', '')}"

# A core for each worker of `pytest -n`: multi-threaded jobs that share cores slow each other down several times.
worker = os.environ.get("PYTEST_XDIST_WORKER", "")
if worker and hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})

import jaxtyping  # noqa: E402 (after the environment is set)

jaxtyping.install_import_hook("relic_jax", "beartype.beartype")

import jax  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402
from jax.experimental.compilation_cache import compilation_cache  # noqa: E402

from tests.programs import Forks  # noqa: E402

# Property tests are the same on every run and every machine.
settings.register_profile("fixed", deadline=None, derandomize=True)
settings.load_profile("fixed")


@pytest.fixture(scope="module", autouse=True)
def few_maps():
    """Compiled programs are forgotten before a process has more maps than Linux allows it (65530), and crashes."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()


@pytest.fixture(scope="session")
def fork():
    """Runs a module as a program in a fork of a process that has done the imports: `fork("launch.train", ...)`."""
    run = Forks("launch.cli", "relic_jax.train.loop", "relic_jax.evaluate.student")
    yield run
    run.close()


@pytest.fixture(scope="module")
def compile_once(tmp_path_factory):
    """Equal programs of a file are compiled once, and LLVM needn't try hard: most tests are mostly compilation."""
    options = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_disable_most_optimizations": True,
    }
    before = {name: jax.config.values[name] for name in options}
    for values in (options, before):
        for name, value in values.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        if values is options:
            yield
