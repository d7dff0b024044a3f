"""What `launch.plan` says: figures against arithmetic done by hand, one clear sentence for what can't be planned."""

import dataclasses
import importlib.util
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from launch import plan_doctor, plan_report, plan_tasks
from relic_jax.config import RelicConfig, from_config_dict
from relic_jax.data.trajectories import TrajectoryConfig
from relic_jax.memory.layout import layout
from relic_jax.models import module, vae
from relic_jax.parallel import hardware, hlo
from relic_jax.parallel import mesh as meshes
from relic_jax.parallel.exchange import bytes_per_block
from relic_jax.parallel.mesh import MeshShape
from relic_jax.train.distill import DistillConfig
from tests.parallel.meshes import CFG, untyped
from tests.programs import start

ROOT = Path(__file__).parents[2]
PLUGIN = any(importlib.util.find_spec(name) for name in ("jax_cuda12_plugin", "jax_cuda13_plugin"))
H100 = hardware.find("h100")
# The width, tokens and memory of 1.3B at 480 x 832, and two of its 30 layers.
WIDE = dataclasses.replace(RelicConfig.wan_1_3b(), dit=dataclasses.replace(RelicConfig.wan_1_3b().dit, layers=2))

_d, _f, _c = WIDE.dit.dim, WIDE.dit.ffn_dim, WIDE.dit.cond_dim
# Two attentions, feed-forward, two injections; around the layers patches, text, time, conditions and head.
_BLOCK = 8 * _d**2 + 2 * _d * _f + 2 * _c * _d
_AROUND = 64 * _d + 4096 * _d + _d**2 + 256 * _d + _d**2 + 6 * _d**2 + 52 * _c + 48 * _c + 2 * _c**2 + 64 * _d
MATRICES = WIDE.dit.layers * _BLOCK + _AROUND
MODULATION = WIDE.dit.layers * 6 * _d + 2 * _d
VECTORS = WIDE.dit.layers * (17 * _d + _f) + 11 * _d + 4 * _c + 64  # norms and biases


def plan(*arguments, **environment):
    command = [sys.executable, "-m", "launch.plan", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **environment})


def measure(cfg, task, mesh, gpu=H100, **options):
    """As the program does, for virtual CPU devices: what is exchanged and stored is the same."""
    shape = MeshShape.parse(mesh)
    with untyped():
        return plan_report.measure(cfg, task, gpu, shape, jax.devices()[: shape.devices], options.get("batch"))


@pytest.fixture(scope="module")
def wide():
    return measure(WIDE, "stream", "seq=4")


def test_stream_of_1_3b_width_holds_to_its_numbers(wide):
    lay, dit = layout(WIDE), WIDE.dit
    numbers = 2 * dit.layers * lay.size * dit.dim
    assert wide["cache_bytes"] == numbers * 2 / 4  # keys and values in bf16; a device has 3 of 12 heads
    assert wide["weights_bytes"] == 2 * MATRICES + 4 * (MODULATION + VECTORS)  # matrices in bf16
    runs = [lay.tokens_per_block] * 5 + [lay.coarse]  # four evaluations that denoise, one that writes, one that pools
    number = 4  # XLA:CPU exchanges bf16 as f32; a GPU doesn't
    needed = sum(bytes_per_block(1, n, dit.dim, 4, 1, number, 4)["all-to-all"] for n in runs) * dit.layers
    assert wide["collectives.all-to-all.count"] == 2 * dit.layers * len(runs)
    assert needed <= wide["collectives.all-to-all.bytes"] <= 1.05 * needed
    velocity = lay.tokens_per_block / 4 * 64 * 4 * 3  # each denoising evaluation hands its velocity to all
    assert wide["collectives.all-gather.bytes"] == 4 * velocity
    # Tokens' linear layers (of cross-attention: queries and output) and attention are divided, the text's keys aren't.
    tokens = sum(2 * n * (6 * _d**2 + 2 * _d * _f) + 4 * n * (n + lay.size + dit.text_len) * _d for n in runs)
    assert wide["flops"] == pytest.approx(dit.layers * (tokens / 4 + len(runs) * 4 * dit.text_len * _d**2), rel=0.01)


def test_a_bound_is_the_longest_of_its_times(wide):
    times = [wide["compute_s"], wide["memory_s"], wide["links_s"]]
    assert wide["bound_s"] == max(times) and wide["bound_fps"] == 16 / max(times)
    assert wide["links_s"] == pytest.approx(
        sum(wide[f"collectives.{kind}.bytes"] for kind in ("all-to-all", "all-gather")) / H100.link_rate
    )
    assert 0 < wide["logits_bytes"] < wide["moved_bytes"] and wide["fused_bound_s"] < wide["bound_s"]
    # The rest: the window's latents and text of the session, its actions, the block that comes out. The text's layers
    # are weights as well, though a step doesn't use them.
    rest = wide["peak_bytes"] - wide["weights_bytes"] - wide["cache_bytes"] - wide["temp_bytes"]
    assert wide["fits"] and 0 < rest < 2**25
    text = plan_report.table(wide, H100)
    assert "stream on 4 x NVIDIA H100 80GB HBM3, mesh seq=4, batch 1" in text and "fits" in text


@pytest.mark.parametrize("task", ["teacher", "ode", "distill"])
def test_training_state_of_1_3b_width_holds_to_its_numbers(task):
    """Eight devices, no compilation: each has an eighth of every matrix, but for one whose sides they can't divide."""
    whole = 52 * WIDE.dit.cond_dim
    weights = 4 * ((MATRICES - whole + MODULATION) / 8 + whole + VECTORS)
    mesh = meshes.make(MeshShape.parse("fsdp=2,seq=4"))
    with untyped(), jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        kinds = plan_tasks.TASKS[task](WIDE, mesh, 2).kinds
    held = {name: plan_tasks.device_bytes(tree) for name, tree in kinds.items()}
    counts = 2 * 4  # Adam's and the schedule's
    clip = 80 * 60 * 104 * 16 + 512 * 4096 + 317 * (13 + 9 + 3) + 1
    points = 4 * 80 * 60 * 104 * 16 + 4 if task == "ode" else 0  # the trajectory's
    expected = {"weights": weights, "ema": weights, "optimizer": 2 * weights + counts, "batch": 4 * (clip + points)}
    if task == "distill":
        expected |= {"critic": 3 * weights + counts, "teacher": weights}
    decoder = jax.tree.leaves(module.abstract(vae.VAE, WIDE.vae))
    expected["vae"] = 4 * sum(leaf.size for leaf in decoder)  # copied to each device, for the samples
    assert held == expected


def test_a_runs_config_is_planned_as_it_is():
    cfg = from_config_dict(DistillConfig, runpy.run_path(ROOT / "configs" / "tiny_distill.py")["get_config"]("10s"))
    mesh = meshes.make(MeshShape.parse("fsdp=2,seq=4"))
    with untyped(), jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        program = plan_tasks.TASKS["distill"](cfg, mesh, cfg.batch)
        state, _ = jax.eval_shape(program.function, *program.arguments)
    assert jax.tree.structure(state) == jax.tree.structure(program.arguments[0])
    assert (program.calls, program.dear_every, program.trips) == (80, 5, 4)


def test_trajectories_are_made_apart_and_cost_by_the_step():
    few, many = (
        measure(TrajectoryConfig("ode_data", CFG, "", "", 33, 2, steps=steps), "ode_data", "data=2", batch=2)
        for steps in (4, 8)
    )
    assert many["flops"] == pytest.approx(2 * few["flops"], rel=0.05) and few["weights_bytes"] == many["weights_bytes"]
    assert not [key for key in few if key.startswith("collectives.")] and few["bound_fps"] == 66 / few["bound_s"]


def test_links_are_as_slow_as_the_slowest():
    """32 devices are four machines of eight: a rail each between machines."""

    def seconds(kind, groups):
        return plan_report._seconds(H100, hlo.Collective(kind, 1, 31e9, groups, "bf16", (), ""))

    everyone = np.arange(32)[None]
    assert seconds("all-gather", everyone.reshape(4, 8)) == 31e9 / H100.link_rate
    assert seconds("all-gather", everyone) == 31e9 / H100.link_rate  # 3e9 of it between machines
    assert seconds("all-gather", everyone.reshape(4, 8).T) == 31e9 / H100.network_rate
    assert seconds("all-to-all", everyone) == 24e9 / H100.network_rate


def test_what_does_not_fit_is_said_so():
    small = dataclasses.replace(H100, memory_bytes=H100.reserved_bytes + 1000)
    figures = measure(CFG, "vae", "seq=2", gpu=small)
    assert not figures["fits"] and "does NOT fit" in plan_report.table(figures, small)
    assert figures["bound_fps"] == 8 / figures["bound_s"]


def test_sweep_names_the_fastest_mesh_that_fits(monkeypatch, capsys):
    monkeypatch.setattr(plan_report, "absent_devices", lambda gpu, shape: jax.devices()[: shape.devices])
    with untyped():
        best = plan_report.sweep(CFG, "stream", H100, 2, None)
    bounds = {mesh: best[f"{mesh}.bound_s"] for mesh in ("seq=2", "tensor=2")}
    assert best["mesh"] == min(bounds, key=bounds.get) and best["bound_s"] == min(bounds.values())
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == sorted(bounds, key=bounds.get)


def test_meshes_worth_trying():
    assert {str(s) for s in plan_tasks.meshes("stream", 4)} == {"seq=4", "seq=2,tensor=2", "tensor=4"}
    assert [str(s) for s in plan_tasks.meshes("vae", 4)] == ["seq=4"]
    assert len(plan_tasks.meshes("teacher", 4)) == 6


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--device=tpu"], "device 'tpu' is not one of a100, h100, h200, b200"),
        (["--task=cook"], "--task=cook is not one of stream, teacher, ode_data, ode, distill, vae"),
        (["--mesh=seq=4,rows=2"], "'rows' is no axis, expected some of data, fsdp, seq, tensor"),
    ],
)
def test_bad_input_is_one_sentence(fork, arguments, sentence):
    done = fork("launch.plan", "--config=configs/tiny.py", *arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and sentence in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.skipif(PLUGIN, reason="JAX's CUDA plugin is installed")
def test_without_the_plugin_it_says_what_to_install(fork):
    done = fork("launch.plan", "--config=configs/tiny.py")
    assert done.returncode == 2 and "pip install 'relic-jax[cuda12]'" in done.stderr.splitlines()[-1]


@pytest.mark.skipif(not PLUGIN, reason="needs JAX's CUDA plugin (the extra cuda12); no GPU")
def test_compiled_for_gpus_that_are_not_here(tmp_path):
    out = tmp_path / "plan.json"
    flags = ["--config=configs/tiny.py", "--device=h100", "--mesh=seq=2", f"--json={out}"]
    done = plan(*flags, XLA_FLAGS="")
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())
    assert figures["fits"] and figures["collectives.all-to-all.count"] == 2 * 6 * 6


@pytest.mark.parametrize("platforms", ["cuda", "nonsense"])
def test_doctor_reports_where_jax_cant_start(platforms):
    done = start("launch.plan", "doctor", JAX_PLATFORMS=platforms)
    if "device   0" in done.stdout:
        pytest.skip("there is one")
    assert done.returncode == 0 and "Traceback" not in done.stderr + done.stdout
    assert f"devices    none: JAX can't start what JAX_PLATFORMS={platforms} asks for" in done.stdout
    assert "versions" in done.stdout and "machine" in done.stdout


def test_doctor_goes_on_past_what_is_broken(monkeypatch, capsys):
    def broken():
        yield "machine    half of it"
        raise OSError("no such device")

    monkeypatch.setattr(plan_doctor, "machine", broken)
    assert plan_doctor.main([]) == 0
    said = capsys.readouterr().out
    assert "half of it" in said and "broken     can't be told: OSError no such device" in said and "versions" in said


def test_doctor_lists_what_is_there_and_what_is_not(fork):
    done = fork("launch.plan", "doctor")
    assert done.returncode == 0
    for word in ("machine", "memory", "driver", "versions", "jax ", "device   0 cpu"):
        assert word in done.stdout
    assert PLUGIN or "JAX's CUDA plugin" in done.stdout
