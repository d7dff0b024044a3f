"""`launch.bench stream`, whole, on a smallest model of random weights."""

import json

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
