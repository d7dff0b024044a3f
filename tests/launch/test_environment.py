"""Environments that are half set up: one sentence, or nothing where nothing is wrong."""

from pathlib import Path

import pytest

from tests.programs import start

SIGNS = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg")


@pytest.mark.parametrize("platforms", ["cuda", "nonsense"])
def test_a_platform_that_isnt_there_is_one_sentence(platforms):
    done = start("launch.bench", "stream", "--blocks=2", JAX_PLATFORMS=platforms)
    if done.returncode == 0:
        pytest.skip("there is one")
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert f"error: JAX can't start what JAX_PLATFORMS={platforms} asks for: " in done.stderr
    assert "set JAX_PLATFORMS=cpu to run on the CPU" in done.stderr


@pytest.mark.skipif(any(Path(sign).exists() for sign in SIGNS), reason="there is a GPU")
def test_a_cuda_plugin_on_a_machine_without_a_gpu_says_nothing(tmp_path):
    plugin = tmp_path / "jax_plugins" / "xla_broken"
    plugin.mkdir(parents=True)
    (plugin / "__init__.py").write_text("def initialize():\n    raise RuntimeError('operation cuInit(0) failed')\n")
    done = start("launch.plan", "doctor", PYTHONPATH=str(tmp_path), JAX_PLATFORMS="")
    assert done.returncode == 0 and "device   0 cpu" in done.stdout
    assert done.stderr == ""
