"""The comparison with PyTorch on tiny models: outputs agree, every figure is there, what can't be compared is said."""

import dataclasses

import pytest

from relic_jax.config import DiTConfig, TextConfig, VAEConfig

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from launch import bench_peers  # noqa: E402 (it needs all three)

SIZES = bench_peers.Sizes(
    dit=DiTConfig(dim=48, ffn_dim=64, heads=2, layers=1, text_len=8, text_dim=16, cond_dim=8, freq_dim=16),
    latents=(2, 4, 6),
    # Four frames a latent, as Wan's: diffusers' encoder takes groups of four whatever the strides.
    vae=VAEConfig(base_dim=8, multipliers=(1, 2, 2), res_blocks=1, temporal_down=(True, True)),
    video=(2, 16, 24),
    text=TextConfig(vocab=31, dim=32, attention_dim=48, ffn_dim=40, heads=2, layers=1, length=12),
)
ROWS = list(bench_peers.rows(SIZES))
FIGURES = {"ours_s", "eager_s", "compile_s", "ratio_vs_eager", "ratio_vs_compile"}


def test_every_row_agrees_and_is_timed_where_nothing_can_be_compiled(monkeypatch, capsys):
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    figures = bench_peers.compare(ROWS, ["f32", "bf16"], 2, SIZES)
    there = FIGURES - {"compile_s", "ratio_vs_compile"}
    assert figures.keys() == {f"{row}.{dtype}.{key}" for row in ROWS for dtype in ("f32", "bf16") for key in there}
    assert all(value > 0 for value in figures.values())
    assert figures["dit.f32.ratio_vs_eager"] == figures["dit.f32.ours_s"] / figures["dit.f32.eager_s"]
    table = capsys.readouterr().out
    assert all(f"{row:11s}{dtype}" in table for row in ROWS for dtype in ("f32", "bf16"))
    assert "torch.compile is not measured: it needs a C++ compiler, and no-such-compiler -O2 is not there" in table


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS)
def test_with_torch_compile(row):
    figures = bench_peers.compare([row], ["f32", "bf16"], 1, SIZES)
    assert figures.keys() == {f"{row}.{dtype}.{key}" for dtype in ("f32", "bf16") for key in FIGURES}
    assert all(value > 0 for value in figures.values())


def test_what_differs_is_not_timed(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    row = bench_peers.rows(SIZES)["umt5"]
    wrong = dataclasses.replace(row, ours=lambda *inputs: 1.001 * row.ours(*inputs))
    with pytest.raises(RuntimeError, match="umt5.f32: ours differs from float32 by 0.001 rms, at most 0.0001"):
        bench_peers.measure("umt5.f32", wrong, "f32", 1)


_WITHOUT = "import sys; sys.modules['{}'] = None; from launch import bench, cli; cli.run_commands(bench.COMMANDS)\n"


@pytest.mark.parametrize(
    ("program", "flag", "words"),
    [
        (_WITHOUT.format("diffusers"), "--rows=dit", 'and diffusers is not there: pip install "relic-jax[test]"'),
        (_WITHOUT.format("torch"), "--rows=dit", 'and torch is not there: pip install "relic-jax[test]"'),
        (_WITHOUT.format("torch"), "--rows=dit,vae", "--rows=dit,vae: expected some of dit, vae_encode, vae_decode"),
        (_WITHOUT.format("torch"), "--dtypes=f16", "--dtypes=f16: expected some of f32, bf16"),
    ],
)
def test_bad_input(fork, tmp_path, program, flag, words):
    (tmp_path / "program.py").write_text(program)
    done = fork(tmp_path / "program.py", "cpu-peers", flag)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ") and words in done.stderr
