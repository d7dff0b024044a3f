"""The page in a real Chromium, headless: what a person does, and what the page then says and shows."""

import json
import re
import shutil
import time
from types import SimpleNamespace

import pytest

from relic_jax.serve.fake import Fake
from relic_jax.serve.metrics import resident_bytes
from relic_jax.serve.walks import Shape
from tests.programs import begin, start
from tests.serve.client import Running
from tests.small import SMALLEST, write_bundle

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium isn't installed; on Debian: apt install chromium")

HALF = Shape(64, 96, 32, 16)  # a block is half a second
PATIENCE = 60_000  # milliseconds; a machine that does other things is slow, not wrong
FIGURES = "() => relic.figures()"


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server():
    with Running(Fake(HALF, seconds=0.05), batch=4) as server:
        yield server


class Tab:
    """A page that keeps what its console says."""

    def __init__(self, browser, server, query="", **options):
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.errors = []
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(f"http://127.0.0.1:{server.port}/{query}")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.context.close()

    def begin(self):
        self.page.locator("#world").wait_for(state="visible")
        self.page.locator(".card").first.click()
        self.page.locator("#go").click()
        self.blocks(1)

    def figures(self):
        return self.page.evaluate(FIGURES)

    def blocks(self, count):
        """Waits until so many are shown."""
        self.page.wait_for_function(f"() => relic.figures().blocks >= {count}")

    def pixels(self):
        script = "() => { const c = document.getElementById('picture'); return c.toDataURL(); }"
        return self.page.evaluate(script)

    def hold(self, key, blocks):
        before = self.figures()["blocks"]
        self.page.keyboard.down(key)
        self.blocks(before + blocks)
        self.page.keyboard.up(key)


def test_walking_turning_and_what_the_figures_say(browser, server):
    with Tab(browser, server) as tab:
        assert tab.page.title() == "relic"
        tab.begin()
        before = tab.pixels()
        tab.hold("w", 3)
        tab.page.locator("#left-keys .held").wait_for(state="detached")
        tab.page.keyboard.down("l")
        assert tab.page.locator("#right-keys .held").inner_text() == "L"
        tab.page.wait_for_function("() => relic.figures().pose.yaw > 10")
        tab.page.keyboard.up("l")
        assert tab.figures()["pose"]["position"][2] > 1
        assert tab.pixels() != before
        tab.page.keyboard.press("g")
        tab.page.wait_for_function("() => /^[0-9]/.test(document.getElementById('latency').textContent)")
        tab.page.wait_for_function("() => parseFloat(document.getElementById('fps').textContent) > 0")
        shown = {one: tab.page.locator(f"#{one}").inner_text() for one in ("block-time", "age", "heading")}
        assert re.fullmatch(r"\d+ ms / \d+ ms / \d+ ms", shown["block-time"])
        assert re.fullmatch(r"\d+ ms", shown["age"]) and not shown["heading"].startswith("0°")
        tab.page.wait_for_function("() => relic.figures().latency.count >= 3")  # two keys, down and up: one may be late
        figures = tab.figures()
        assert figures["latency"]["median"] > 0  # how long: `test_five_minutes`
        assert figures["depth"] <= 1
        assert tab.errors == []


def test_back_branch_reset_and_memory(browser, server):
    with Tab(browser, server) as tab:
        tab.begin()
        tab.hold("d", 4)
        tab.page.keyboard.press("m")
        tab.page.wait_for_function("() => relic.figures().memory.mass !== null")
        held = tab.figures()["memory"]
        assert len(held["held"]) == len(held["mass"])
        tab.page.locator("#timeline").focus()
        tab.page.keyboard.press("Home")
        tab.page.keyboard.press("ArrowRight")
        assert tab.page.locator("#cursor-text").inner_text() == "1 s"  # half of one, rounded
        tab.page.keyboard.press("Enter")
        tab.page.wait_for_function("() => relic.figures().blocks <= 3")
        tab.page.wait_for_function("() => relic.figures().pose && relic.figures().blocks >= 2")
        tab.hold("w", 2)
        tab.page.keyboard.press("r")
        tab.page.wait_for_function("() => relic.figures().blocks <= 1 && relic.figures().playing")
        tab.blocks(1)
        assert tab.figures()["pose"]["position"] == [0, 0, 0]
        assert tab.errors == []


def test_pause_is_a_picture_that_stands_still(browser, server):
    with Tab(browser, server) as tab:
        tab.begin()
        tab.page.keyboard.press("p")
        tab.page.wait_for_timeout(700)  # what was on its way
        blocks, pixels = tab.figures()["blocks"], tab.pixels()
        tab.page.wait_for_timeout(1200)
        assert tab.figures()["blocks"] == blocks and tab.pixels() == pixels
        assert tab.page.locator("#chip").inner_text() == "paused"
        tab.page.keyboard.press("p")
        tab.blocks(blocks + 2)
        assert tab.errors == []


def test_a_picture_of_ones_own_prompt_and_what_is_refused(browser, server, tmp_path):
    from PIL import Image

    Image.linear_gradient("L").convert("RGB").save(tmp_path / "own.png")
    (tmp_path / "none.png").write_bytes(b"nothing")
    with Tab(browser, server) as tab:
        tab.page.locator("#world").wait_for(state="visible")
        tab.page.locator("#own").set_input_files(tmp_path / "none.png")
        tab.page.locator("#prompt").fill("a hall")
        tab.page.locator("#go").click()
        tab.page.locator("#note.shown", has_text="the picture can't be read").wait_for()
        tab.page.locator("#own").set_input_files(tmp_path / "own.png")
        tab.page.locator("#prompt").fill("a hall")
        tab.page.locator("#go").click()
        tab.blocks(1)
        tab.page.keyboard.press("n")
        tab.page.locator("#prompt").fill("another hall")
        tab.page.locator("#describe").click()
        tab.page.locator("#note.shown", has_text="From here on: another hall").wait_for()


def test_keyboard_alone_is_enough(browser, server):
    with Tab(browser, server) as tab:
        tab.page.locator("#world").wait_for(state="visible")
        for _ in range(30):
            if tab.page.evaluate("() => document.activeElement.id") == "go":
                break
            tab.page.keyboard.press("Tab")
        tab.page.keyboard.press("Enter")
        tab.blocks(1)
        tab.hold("w", 1)
        tab.page.keyboard.press("h")
        assert tab.page.locator("#help").is_visible()
        tab.page.keyboard.press("Escape")
        assert not tab.page.locator("#help").is_visible()
        assert tab.errors == []


def test_a_phone(browser, server):
    phone = {"viewport": {"width": 390, "height": 780}, "device_scale_factor": 2, "has_touch": True, "is_mobile": True}
    with Tab(browser, server, **phone) as tab:
        tab.page.locator("#world").wait_for(state="visible")
        tab.page.locator(".card").first.tap()
        tab.page.locator("#go").tap()
        tab.blocks(1)
        whole, seen = tab.page.evaluate(
            "() => { const e = document.documentElement;"
            " return [[e.scrollWidth, e.scrollHeight], [innerWidth, innerHeight]]; }"
        )
        assert whole[0] <= seen[0] and whole[1] <= seen[1]
        picture = tab.page.locator("#frame").bounding_box()
        assert picture["width"] > 340 and tab.page.locator("#stick-move").is_visible()
        stick = tab.page.locator("#stick-turn").bounding_box()
        tab.page.mouse.move(stick["x"] + stick["width"] / 2, stick["y"] + stick["height"] / 2)
        tab.page.mouse.down()
        tab.page.mouse.move(stick["x"] + stick["width"] - 4, stick["y"] + stick["height"] / 2)
        tab.page.wait_for_function("() => relic.figures().pose?.yaw > 5")
        tab.page.mouse.up()
        assert tab.errors == []


def test_dragging_looks_around(browser, server):
    with Tab(browser, server) as tab:
        tab.begin()
        box = tab.page.locator("#picture").bounding_box()
        tab.page.mouse.move(box["x"] + 200, box["y"] + 200)
        tab.page.mouse.down()
        tab.page.mouse.move(box["x"] + 100, box["y"] + 150)
        tab.page.wait_for_function("() => relic.figures().pose?.yaw < -5 && relic.figures().pose?.pitch > 2")
        tab.page.mouse.up()


def test_a_server_that_ends_is_said_and_found_again(browser):
    from tests.serve import client

    with Running(Fake(HALF)) as server:
        port = server.port
        tab = Tab(browser, server)
        tab.begin()
    with tab:
        tab.page.locator("#veil", has_text="The connection is gone").wait_for()
        assert tab.page.locator("#chip").inner_text() == "not connected"
        with pytest.MonkeyPatch.context() as patch:
            create = client.socket.create_server
            patch.setattr(client.socket, "create_server", lambda address, **more: create((address[0], port), **more))
            with Running(Fake(HALF)):
                tab.page.locator("#world").wait_for(state="visible", timeout=PATIENCE)
                tab.page.locator("#go").click()
                tab.page.wait_for_function("() => relic.figures().playing && relic.figures().blocks >= 1")


def test_h264_is_decoded_or_jpeg_taken(browser):
    with Running(Fake(HALF), codecs=("jpeg", "h264"), batch=2) as server:
        with Tab(browser, server) as tab:
            secure = tab.page.evaluate(
                "async () => isSecureContext && 'VideoDecoder' in window && "
                "(await VideoDecoder.isConfigSupported({codec: 'avc1.64001f'})).supported"
            )
            sent = []
            tab.page.on("websocket", lambda socket: socket.on("framereceived", lambda data: sent.append(data)))
            tab.page.reload()
            tab.begin()
            tab.hold("l", 4)
            tab.page.keyboard.press("Backspace")  # a key frame again
            tab.blocks(2)
            codecs = {json.loads(data[4 : 4 + int.from_bytes(data[:4])])["codec"] for data in sent if is_block(data)}
            assert codecs == {"h264" if secure else "jpeg"}
            tab.page.wait_for_function("() => relic.figures().frames > 30")
            assert tab.errors == []
        with Tab(browser, server) as tab:
            tab.page.add_init_script("delete globalThis.VideoDecoder")
            tab.page.reload()
            tab.begin()
            assert tab.errors == []


def is_block(data):
    return isinstance(data, bytes) and b'"type":"block"' in data[:200]


def test_a_recording_is_made_again_bit_for_bit(browser, tmp_path):
    """The whole way: a model, a page, a file; then `launch.generate --replay`."""
    from relic_jax.models import bundle
    from relic_jax.serve.relic import Relic

    config = write_bundle(tmp_path / "model", SMALLEST)
    with Running(Relic(bundle.load(tmp_path / "model"))) as server, Tab(browser, server, accept_downloads=True) as tab:
        tab.page.locator("#world").wait_for(state="visible", timeout=120_000)
        tab.begin()
        tab.hold("w", 1)
        files = []
        tab.page.on("download", lambda download: files.append(download))
        tab.page.keyboard.press("v")
        tab.page.wait_for_function("() => document.getElementById('chip').dataset.state === 'recording'")
        tab.hold("l", 2)
        tab.page.keyboard.press("Shift+Backspace")
        tab.blocks(2)
        tab.hold("d", 2)
        tab.page.keyboard.press("v")
        deadline = time.monotonic() + 20
        while len(files) < 2:
            assert time.monotonic() < deadline
            tab.page.wait_for_timeout(100)
        for one in files:
            one.save_as(tmp_path / f"recording{one.suggested_filename[-5:].lstrip('0123456789abcdef')}")
        assert tab.errors == []
    log = tmp_path / "recording.json"
    recorded = json.loads(log.read_text())["recorded"]
    assert recorded["frames"] == len(recorded["poses"]) >= 48
    assert (tmp_path / "recording.mp4").stat().st_size > 1000
    done = start(
        "launch.generate", f"--config={config.with_suffix('.py')}", f"--checkpoint={tmp_path / 'model'}",
        f"--replay={log}", f"--out={tmp_path / 'again.mp4'}", f"--json={tmp_path / 'again.json'}",
        JAX_DISABLE_MOST_OPTIMIZATIONS="0",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "again.json").read_text()) == {"frames": recorded["frames"], "identical": True}


@pytest.mark.slow  # five minutes in real time, with the shipped model, on a machine that does nothing else
def test_five_minutes_of_the_tiny_world(browser):
    process = begin("launch.serve", "--port=0", JAX_DISABLE_MOST_OPTIMIZATIONS="0")
    try:
        port = int(process.stdout.readline().split()[0].rstrip("/").rsplit(":", 1)[1])
        with Tab(browser, SimpleNamespace(port=port)) as tab:
            tab.begin()
            keys, memory, begun = "wlsjadik", {}, time.monotonic()
            tab.blocks(5)
            tab.page.evaluate("() => relic.restart()")
            frames, at = tab.figures()["frames"], time.monotonic()
            for press in range(10_000):
                key = keys[press % len(keys)]
                tab.page.keyboard.down(key)
                tab.page.wait_for_timeout(770)
                tab.page.keyboard.up(key)
                minute = int((time.monotonic() - begun) / 60)
                memory.setdefault(minute, resident_bytes(process.pid))
                if minute >= 5:
                    break
            figures, seconds = tab.figures(), time.monotonic() - at
            fps = (figures["frames"] - frames) / seconds
            print(
                f"fps {fps:.2f}", json.dumps(figures["latency"]), json.dumps(figures["age"]), figures["stalls"], memory
            )
            assert figures["latency"]["median"] <= 1.5 + 0.1 and figures["latency"]["p95"] <= 2.5
            assert fps >= 15.9 and figures["age"]["most"] <= 2.0
            assert memory[5] <= 1.05 * memory[1]
            assert tab.errors == []
    finally:
        process.terminate()
        process.wait(30)
