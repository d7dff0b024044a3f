"""What can go wrong between a page and the server: the server stays up, the other session goes on, nothing leaks."""

import asyncio
import gc
import io
import os
import signal
import socket
import tempfile
import time

import numpy as np
import pytest
import websockets
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from relic_jax.serve import protocol
from relic_jax.serve.limits import Limits
from relic_jax.serve.metrics import resident_bytes
from tests.programs import begin
from tests.serve.client import Running, connected, ends, playing, run


@pytest.fixture(scope="module")
def server():
    with Running(batch=2, waiting=8, limits=Limits(stall=3, picture=200_000, pixels=1_000_000)) as server:
        yield server


async def goes_on(page, count=3):
    """A session plays on while something else happens."""
    before = len(page.blocks)
    await page.play(count)
    assert len(page.blocks) == before + count


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def test_a_killed_client_is_nobody_elses_loss(server):
    async def play():
        async with playing(server) as other:
            await other.open()
            await goes_on(other)
            for _ in range(5):
                async with playing(server) as page:
                    await page.open()
                    await page.until("block")
                    page.socket.transport.abort()  # no goodbye, in the middle of a block
                await goes_on(other)
            async with playing(server) as page:  # the seat is free again
                await page.open()
                await page.play(1)

    run(play())


def test_a_network_that_stalls_is_waited_for(server):
    """Nothing is read for a while: blocks stop, and go on where they stopped."""

    async def play():
        async with playing(server) as other, playing(server) as page:
            await other.open()
            await page.open()
            await page.play(2)
            block = await page.until("block")
            for _ in range(10):
                await goes_on(other, 2)
                await asyncio.sleep(0.1)
            await page.shown(block, early=-1.0)
            (after,) = await page.play(1)
            assert after["block"] == block["block"] + 1

    run(play())


@pytest.mark.slow
def test_a_network_that_stalls_for_ten_seconds():
    async def play():
        with Running(batch=2) as server:
            async with playing(server) as other, playing(server) as page:
                await other.open()
                await page.open()
                block = await page.until("block")
                deadline = time.monotonic() + 10
                while time.monotonic() < deadline:
                    await goes_on(other, 2)
                await page.shown(block, early=-10.0)
                assert (await page.play(1))[0]["block"] == block["block"] + 1

    run(play(), 60)


def test_two_hundred_clients_connect(server):
    async def come():
        try:
            async with connected(server) as page:
                await asyncio.wait_for(page.until("waiting"), 20)
                return "waits"
        except websockets.ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else "gone"

    async def play():
        async with playing(server) as one, playing(server) as two:
            await one.open()
            await two.open()
            come_all = [asyncio.create_task(come()) for _ in range(200)]
            await goes_on(one)
            results = await asyncio.gather(*come_all)
            await goes_on(two)
            return results

    before = descriptors()
    results = run(play(), 60)
    assert results.count(4409) >= 100 and set(results) <= {4409, "waits"}
    time.sleep(0.5)
    gc.collect()
    assert descriptors() <= before + 4


@settings(max_examples=60)
@given(st.lists(st.one_of(st.text(max_size=80), st.binary(max_size=80)), min_size=1, max_size=10))
def test_nonsense_ends_its_own_connection(server, said):
    """That 10,000 messages are read or refused is `test_protocol`'s; here they come over the wire."""
    code, reason = run(ends(server, *said))
    assert code in (4400, 4429) and reason


def _picture(size, kind="PNG"):
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (size, size, 3)).astype(np.uint8)).save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (_picture(400), "the picture has 0.5 MB; expected at most 0.2"),
        (Image.new("1", (1100, 1000)), "the picture has 1 megapixels; expected at most 1"),
        (b"not a picture", "the picture can't be read; expected JPEG, PNG, WEBP"),
        (_picture(40, "BMP"), "the picture can't be read"),
        (_picture(40, "TIFF"), "the picture can't be read"),
        (_picture(40)[:-200], "expected an image file that can be read"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "the picture can't be read"),
    ],
    ids=["large", "pixels", "text", "bmp", "tiff", "cut", "svg"],
)
def test_pictures_that_are_none_are_refused_with_a_sentence(server, data, why):
    if isinstance(data, Image.Image):
        out = io.BytesIO()
        data.save(out, "PNG")
        data = out.getvalue()

    async def play():
        async with playing(server) as page:
            await page.say(protocol.Open(prompt="a room"), data)
            said = (await page.until("refused"))["why"]
            assert why in said and "/tmp" not in said
            await page.open()
            await page.play(1)

    run(play())


def test_a_message_beyond_all_limits_ends_the_connection():
    with Running(limits=Limits(upload=100_000)) as server:
        assert run(ends(server, b"\0" * 200_000))[0] == 1009  # of WebSocket itself

        async def play():
            async with playing(server) as page:
                await page.open()
                await page.play(1)

        run(play())


def test_two_tabs_of_one_person_are_two_sessions(server):
    async def play():
        async with playing(server) as one, playing(server) as two:
            await one.open(seed=1)
            await two.open(seed=2)
            await one.hold(turn=(1, 0, 0))
            await two.hold(turn=(-1, 0, 0))
            for _ in range(3):
                await goes_on(one, 1)
                await goes_on(two, 1)
            assert one.blocks[-1][0]["pose"]["yaw"] > 0 > two.blocks[-1][0]["pose"]["yaw"]

    run(play())


def test_coming_and_going_leaks_nothing(server):
    async def visit():
        async with playing(server) as page:
            await page.open()
            await page.play(2)

    for _ in range(5):
        run(visit())
    gc.collect()
    before, files = resident_bytes(), descriptors()
    for _ in range(40):
        run(visit())
    gc.collect()
    time.sleep(0.3)
    assert resident_bytes() < 1.05 * before and descriptors() <= files + 2


def test_who_leaves_in_the_middle_of_a_recording_leaves_nothing(server):
    """A block may be encoded in a thread just then."""

    async def visit():
        async with playing(server) as page:
            await page.open()
            await page.say(protocol.Record(on=True))
            await page.play(2)
            page.socket.transport.abort()

    files, folders = descriptors(), set(os.listdir(tempfile.gettempdir()))
    for _ in range(10):
        run(visit())
    time.sleep(0.3)
    assert descriptors() <= files + 2
    assert not [f for f in set(os.listdir(tempfile.gettempdir())) - folders if f.startswith("tmp")]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)])
def test_a_signal_ends_the_server_after_the_block(number, code, tmp_path):
    process = begin("launch.serve", "--fake", "--fake_seconds=0.5", "--port=0")
    try:
        address = process.stdout.readline().split()[0]
        port = int(address.rstrip("/").rsplit(":", 1)[1])

        class server:
            @staticmethod
            def address():
                return f"ws://127.0.0.1:{port}/ws?protocol_version={protocol.PROTOCOL_VERSION}"

        async def play():
            async with playing(server) as page:
                await page.open()
                await page.until("block")
                process.send_signal(number)  # the next block is being made
                with pytest.raises(websockets.ConnectionClosed):
                    while True:
                        await page.hear()
                return page.socket.close_code

        assert run(play(), 60) == 1012  # the service restarts: the page tries again
        out, err = process.communicate(timeout=30)
        assert process.returncode == code and "Traceback" not in err, err
    finally:
        process.kill()


BAD = {
    "others without a token": (["--fake", "--host=0.0.0.0"], "--host=0.0.0.0 is open to others, which needs --token"),
    "a port that is taken": (["--fake", "--port={port}"], "can't be listened at: Address already in use"),
    "a host that isn't here": (["--fake", "--host=192.0.2.1", "--token=x"], "can't be listened at"),
    "no model": (["--checkpoint=/nonexistent"], "config.json does not exist"),
    "idle": (["--fake", "--idle=-1"], "--idle: expected a finite number above 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_flags_are_one_sentence(fork, case):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        arguments, said = BAD[case]
        done = fork("launch.serve", *(a.format(port=taken.getsockname()[1]) for a in arguments))
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1, done.stderr
