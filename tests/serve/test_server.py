"""The server as a page meets it: flow, another past, queue, token, origin, and who says goodbye."""

import asyncio
import contextlib
import json
import time
import urllib.error
import urllib.request

import pytest
import websockets

from relic_jax.serve import protocol
from relic_jax.serve.fake import Fake
from relic_jax.serve.limits import Limits
from tests.serve.client import PICTURE, QUICK, Running, connected, ends, playing, run


@pytest.fixture(scope="module")
def server():
    with Running() as server:
        yield server


def get(server, path, **headers):
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


def test_a_world_is_opened_and_moves(server):
    async def play():
        async with playing(server) as page:
            welcome = page.said[0]
            assert welcome["type"] == "welcome" and (welcome["height"], welcome["width"]) == (32, 48)
            await page.hold(move=(0, 0, 1))
            opened = await page.open(prompt="  a   room ", seed=7)
            assert opened["prompt"] == "a room" and opened["seed"] == "7" and opened["blocks"] == 0
            blocks = await page.play(3)
            assert [block["block"] for block in blocks] == [0, 1, 2] and blocks[0]["key"]
            assert [len(parts) for _, parts in page.blocks] == [13, 16, 16]
            assert all(part.startswith(b"\xff\xd8") for _, parts in page.blocks for part in parts)
            # By hand: 12 and then 16 frames of a tenth of a unit forward.
            assert [block["pose"]["position"][2] for block in blocks] == pytest.approx([1.2, 2.8, 4.4])
            assert all(block["seq"] == 1 and block["start"] <= block["end"] for block in blocks)

    run(play())


def test_no_block_comes_before_the_one_before_is_shown(server):
    async def play():
        async with playing(server) as page:
            await page.open()
            first = await page.until("block")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):  # five blocks' time
                    await page.until("block")
            await page.shown(first)
            second = await page.until("block")
            assert second["block"] == 1
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await page.until("block")

    run(play())


def test_keys_are_those_held_when_a_block_begins():
    """Of what is pressed and let go while a block is made, only what is held at the end counts."""

    async def play():
        with Running(Fake(QUICK, seconds=0.3)) as server:
            async with playing(server) as page:
                await page.open()
                await asyncio.sleep(0.1)
                for turn in (1, -1, 0.5):
                    await page.hold(turn=(turn, 0, 0))
                blocks = await page.play(3)
                assert blocks[0]["seq"] == 0 and blocks[0]["pose"]["yaw"] == 0
                assert blocks[1]["seq"] == 3 and blocks[1]["pose"]["yaw"] == pytest.approx(16 * 0.5 * 2)

    run(play())


def test_reset_and_branch_drop_what_was_on_its_way():
    async def play():
        with Running(Fake(QUICK, seconds=0.2)) as server:
            async with playing(server) as page:
                await page.open()
                blocks = await page.play(3)
                await page.say(protocol.Branch(blocks=1, seed=5))  # while a block is made
                opened = await page.until("opened")
                assert opened["blocks"] == 1 and opened["seed"] == "5" and len(opened["path"]) == 1
                later = [block["block"] for block, _ in page.blocks if block["epoch"] == opened["epoch"]]
                assert later == []
                (again,) = await page.play(1)
                assert again["block"] == 1 and again["epoch"] == opened["epoch"] and again["key"]
                old = blocks[-1]
                await page.shown(old)  # a late word on an earlier past is nobody's
                await page.say(protocol.Reset(seed=2))
                assert (await page.until("opened"))["blocks"] == 0
                assert (await page.play(1))[0]["block"] == 0
                text = get(server, "/metrics")[1].decode()
                assert "relic_dropped_blocks_total 0.0" not in text

    run(play())


def test_what_cant_be_done_is_said_and_all_goes_on(server):
    async def play():
        async with playing(server) as page:
            for message, why in (
                (protocol.Reset(), "there is no world yet"),
                (protocol.Open(prompt="x", scene="nowhere"), "there is no scene 'nowhere'"),
                (protocol.Open(prompt="x"), "a scene or with a picture"),
            ):
                await page.say(message)
                assert why in (await page.until("refused"))["why"]
            await page.say(protocol.Load(), b"nonsense")
            assert "not one that was saved here" in (await page.until("refused"))["why"]
            await page.open()
            await page.play(2)
            await page.say(protocol.Branch(blocks=9))
            assert "a branch of 9 blocks" in (await page.until("refused"))["why"]
            await page.say(protocol.Describe(prompt=" "))
            assert "prompt is empty" in (await page.until("refused"))["why"]
            last = page.blocks[-1][0]
            await page.shown(last)
            assert (await page.play(2))[-1]["epoch"] == last["epoch"]

    run(play())


def test_pause_prompt_memory_save_and_load(server):
    async def play():
        async with playing(server) as page:
            await page.say(protocol.Attention(on=True))
            await page.open()
            await page.hold(turn=(1, 0, 0))
            blocks = await page.play(4)
            assert len(blocks[-1]["memory"]["held"]) == 16
            assert sum(blocks[-1]["memory"]["mass"]) == pytest.approx(1, abs=1e-3)
            await page.say(protocol.Describe(prompt="a hall"))
            assert (await page.until("described"))["prompt"] == "a hall"
            await page.say(protocol.Pause(on=True))
            await asyncio.sleep(0.3)
            await page.say(protocol.Save())
            await page.until("file")
            (header, (data,)) = page.files[-1]
            assert header["name"].endswith(".relic")
            await page.say(protocol.Load(), data)
            opened = await page.until("opened")
            assert opened["prompt"] == "a hall" and opened["blocks"] >= 4
            await page.say(protocol.Pause(on=False))
            assert (await page.play(1))[0]["block"] == opened["blocks"]

    run(play())


def test_a_second_user_waits_and_comes_next(server):
    async def play():
        async with playing(server) as first:
            await first.open()
            async with connected(server) as second, connected(server) as third:
                assert (await second.until("waiting"))["place"] == 1
                assert (await third.until("waiting"))["place"] == 2
                await first.play(2)
                await second.socket.close()
                assert (await third.until("waiting"))["place"] == 1
                await first.socket.close()
                assert (await third.until("waiting"))["place"] == 0
                await third.open()
                await third.play(1)

    run(play())


def test_several_play_in_one_step_and_come_and_go():
    async def one(server, turn, count):
        async with playing(server) as page:
            await page.open(seed=turn)
            await page.hold(turn=(turn / 10, 0, 0))
            await page.play(count)
            return page.blocks[-1][0]["pose"]["yaw"]

    async def play():
        with Running(Fake(QUICK, seconds=0.05), batch=4, waiting=0) as server:
            yaws = await asyncio.gather(*(one(server, turn, 3 + turn) for turn in range(4)))
            assert [yaw > 0 for yaw in yaws] == [False, True, True, True]
            text = get(server, "/metrics")[1].decode()
            assert 'relic_block_seconds_count{sessions="2"}' in text or 'sessions="4"' in text

    run(play())


HELLO = protocol.Hello().model_dump_json()


def test_a_connection_ends_with_a_reason(server):
    assert run(ends(server, "{")) == (4400, "message: Invalid JSON: EOF while parsing an object at line 1 column 1")
    assert run(ends(server, HELLO))[0] == 4400  # a second hello
    bad = protocol.Control(seq=4, move=(0.0, 0.0, 0.0), turn=(0.0, 0.0, 0.0)).model_dump_json()
    assert run(ends(server, bad, bad.replace("4", "3")))[1] == "a control's seq is below the one before"
    ahead = protocol.Ack(epoch=9, block=0).model_dump_json()
    assert run(ends(server, ahead))[1] == "an acknowledgement of a block that was never sent"


def test_who_says_too_much_at_once_is_cut_off():
    with Running(Fake(QUICK, seconds=2.0), limits=Limits(messages=1, burst=30)) as server:
        pings = [protocol.Ping(at=0.0).model_dump_json()] * 100
        assert run(ends(server, *pings)) == (4429, "too many messages at once")
        open_world = protocol.pack(protocol.Open(prompt="a room"), [PICTURE])
        saves = [protocol.Save().model_dump_json()] * 15  # while the first block is made
        assert run(ends(server, open_world, *saves)) == (4429, "too many commands at once")


def test_another_version_is_refused_with_a_sentence(server):
    async def play():
        async with websockets.connect(server.address(version=99)) as socket:
            with pytest.raises(websockets.ConnectionClosed):
                await socket.recv()
            return socket.close_code, socket.close_reason

    code, reason = run(play())
    assert code == 4406 and reason == "this server speaks protocol_version 1, the page 99; load the page anew"


def test_a_token_is_asked_for_and_never_said(capfd):
    with Running(token="open sesame") as server:
        assert run(ends(server, token="open"))[0] == 4401
        assert run(ends(server))[0] == 4401

        async def play():
            async with playing(server, token="open sesame") as page:
                await page.open()
                await page.play(1)

        run(play())
        assert get(server, "/metrics")[0] == 401
        assert get(server, "/metrics", Authorization="Bearer open sesame")[0] == 200
        assert get(server, "/healthz")[0] == 200
    out, err = capfd.readouterr()
    assert "sesame" not in out + err


def test_pages_of_other_places_are_refused(server):
    async def play(**headers):
        async with websockets.connect(server.address(), additional_headers=headers) as socket:
            await socket.close()

    run(play(Origin=f"http://127.0.0.1:{server.port}"))
    for headers in (
        {"Origin": "http://elsewhere.example"},
        {"Origin": "null"},
        {"Origin": f"http://127.0.0.1:{server.port + 1}"},
        {"Host": "elsewhere.example", "Origin": "http://elsewhere.example"},  # a name that leads here
    ):
        with pytest.raises(websockets.InvalidStatus):
            run(play(**headers))
    assert get(server, "/", Host="elsewhere.example")[0] == 400


def test_the_page_and_what_operators_ask(server):
    status, page, headers = get(server, "/")
    assert status == 200 and b"main.js" in page and "default-src 'self'" in headers["Content-Security-Policy"]
    assert get(server, "/main.js")[2]["Content-Type"].startswith("text/javascript")
    assert get(server, "/../app.py")[0] == 404 and get(server, "/scenes/scenes.json")[0] == 200
    assert get(server, "/healthz")[:2] == (200, b"ok\n")
    status, state, _ = get(server, "/readyz")
    assert status == 200 and json.loads(state)["ready"]
    text = get(server, "/metrics")[1].decode()
    for name in ("relic_blocks_total", "relic_block_seconds_bucket", "relic_sessions", "relic_process_resident_bytes"):
        assert f"\n{name}" in text


def test_warming_up_is_shown_and_commands_wait():
    async def play():
        with Running(Fake(QUICK, warm_seconds=1.5)) as server:
            assert get(server, "/readyz")[0] == 503 and get(server, "/healthz")[0] == 200
            async with connected(server) as page:
                await page.open()
                await page.play(1)
                told = [one["done"] for one in page.said if one["type"] == "warming"]
                assert told == sorted(told) and len(set(told)) > 2

    run(play())


def test_whoever_does_nothing_makes_room():
    with Running(limits=Limits(idle=2)) as server:
        begun = time.monotonic()
        assert run(ends(server)) == (4408, "no key was pressed for 2 s")
        assert time.monotonic() - begun < 20

        async def play():  # a key that is held is something
            async with playing(server) as page:
                await page.open()
                for _ in range(12):
                    await page.hold(turn=(1, 0, 0))
                    await page.play(1)

        run(play())


def test_a_failing_model_ends_that_session_alone(server, monkeypatch):
    async def play():
        async with playing(server) as page:
            await page.open()
            await page.play(1)
            monkeypatch.setattr(server.model, "play", lambda *_: 1 / 0)
            await page.shown(page.blocks[-1][0])
            with contextlib.suppress(websockets.ConnectionClosed):
                while True:
                    block = await page.until("block")
                    await page.shown(block)
            monkeypatch.undo()
            assert page.socket.close_code == 4500
        async with playing(server) as page:
            await page.open()
            await page.play(2)

    run(play())
