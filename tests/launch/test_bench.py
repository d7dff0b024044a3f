"""`launch.bench stream` and `serve`, whole, on a smallest model of random weights."""

import json

import pytest
from PIL import Image

from tests.programs import start
from tests.small import SMALLEST, write_bundle


def test_stream(tmp_path):
    config = write_bundle(tmp_path / "model", SMALLEST)
    out, plot = tmp_path / "bench.json", tmp_path / "bench.png"
    done = start(
        "launch.bench", "stream", f"--config={config}", f"--checkpoint={tmp_path / 'model'}", "--blocks=101",
        f"--json={out}", f"--plot={plot}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())
    documented = {
        "blocks", "frames", "compile_s", "steady_fps", "block_median_s", "block_25_35_s", "block_90_100_s",
        "peak_rss_bytes",
    }  # fmt: skip
    assert set(figures) == documented
    assert figures["blocks"] == 101 and figures["frames"] == 101 * 4 * SMALLEST.stream.block - 3
    assert all(type(value) in (int, float) and value > 0 for value in figures.values())
    assert all(name in done.stdout for name in documented)
    Image.open(plot).verify()


@pytest.mark.slow  # viewers watch in real time
def test_serve(tmp_path):
    config = write_bundle(tmp_path / "model", SMALLEST)
    out = tmp_path / "bench.json"
    asked = [f"--config={config}", f"--checkpoint={tmp_path / 'model'}"]
    done = start("launch.bench", "serve", *asked, "--sessions=1,2", "--blocks=16", f"--json={out}")
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())
    kinds = [f"{kind}_p{percent}_s" for kind in ("arrival", "latency", "block") for percent in (50, 95, 99)]
    kinds += ["first_frame_s", "on_time", "stall_s", "watched_s", "viewer_fps", "frame_bytes"]
    kinds += ["server_rss_bytes", "server_rss_growth"]
    assert set(figures) == {f"{sessions}.{kind}" for sessions in (1, 2) for kind in kinds}
    for sessions in (1, 2):
        assert 0 <= figures[f"{sessions}.on_time"] <= 1 and figures[f"{sessions}.viewer_fps"] > 0
        assert figures[f"{sessions}.latency_p50_s"] <= figures[f"{sessions}.latency_p99_s"]
    done = start("launch.bench", "serve", *asked, "--blocks=5")
    assert done.returncode == 2 and "--blocks=5: expected at least 14, memory is full after 11" in done.stderr
