"""A server in a thread, and a page without a browser: it says what a page says, and keeps what it is sent."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from contextlib import asynccontextmanager

import uvicorn
import websockets

from relic_jax.serve import app, protocol
from relic_jax.serve.fake import Fake
from relic_jax.serve.walks import Shape

QUICK = Shape(32, 48, 160, 16)  # a block is a tenth of a second


class Running:
    """A server at `port` until the block ends."""

    def __init__(self, model=None, **settings):
        self.model = model or Fake(QUICK)
        self.settings = app.Settings(**settings)

    def __enter__(self):
        listening = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = listening.getsockname()[1]
        config = uvicorn.Config(
            app.application(self.model, self.settings),
            log_level="warning",
            ws="websockets-sansio",
            ws_max_size=self.settings.limits.upload,
            ws_per_message_deflate=False,
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listening]})
        self._thread.start()
        deadline = time.monotonic() + 20
        while not self._server.started:
            assert time.monotonic() < deadline and self._thread.is_alive()
            time.sleep(0.01)
        return self

    def __exit__(self, *error):
        self._server.should_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive()

    def address(self, version=protocol.PROTOCOL_VERSION):
        return f"ws://127.0.0.1:{self.port}/ws?protocol_version={version}"


class Page:
    """One connection. Messages that aren't blocks are in `said`, blocks in `blocks`, files in `files`."""

    def __init__(self, socket):
        self.socket = socket
        self.said, self.blocks, self.files = [], [], []
        self.seq = 0

    async def say(self, message, *payload):
        data = protocol.pack(message, payload) if payload else message.model_dump_json()
        await self.socket.send(data)

    async def hear(self):
        """The next message: its type, and what it says."""
        data = await self.socket.recv()
        if isinstance(data, str):
            message = json.loads(data)
            self.said.append(message)
            return message
        header, *parts = protocol.unpack(data)
        message = json.loads(header)
        (self.blocks if message["type"] == "block" else self.files).append((message, parts))
        return message

    async def until(self, kind):
        """Hears until a message of this type comes; blocks are not acknowledged."""
        while True:
            message = await self.hear()
            if message["type"] == kind:
                return message

    async def hold(self, move=(0, 0, 0), turn=(0, 0, 0)):
        self.seq += 1
        floats = (tuple(float(v) for v in values) for values in (move, turn))
        await self.say(protocol.Control(seq=self.seq, move=next(floats), turn=next(floats)))

    async def shown(self, block, early=None):
        await self.say(protocol.Ack(epoch=block["epoch"], block=block["block"], early=early))

    async def open(self, prompt="a room", seed=0, **more):
        picture = () if "scene" in more else (PICTURE,)
        await self.say(protocol.Open(prompt=prompt, seed=seed, **more), *picture)
        return await self.until("opened")

    async def play(self, count):
        """So many blocks, each acknowledged at once."""
        for _ in range(count):
            await self.shown(await self.until("block"))
        return [block for block, _ in self.blocks[-count:]]


@asynccontextmanager
async def connected(server, token="", **options):
    async with websockets.connect(server.address(), max_size=None, **options) as socket:
        page = Page(socket)
        await page.say(protocol.Hello(token=token))
        yield page


@asynccontextmanager
async def playing(server, **options):
    """A page that has a seat at a warm model."""
    async with connected(server, **options) as page:
        while (await page.until("warming"))["what"] != "ready":
            pass
        yield page


def run(coroutine, seconds=30):
    """An asynchronous test, of at most so many seconds."""

    async def limited():
        async with asyncio.timeout(seconds):
            return await coroutine

    return asyncio.run(limited())


async def ends(server, *messages, **options):
    """How a connection ends that says these messages: the code and the reason."""
    with contextlib.suppress(websockets.ConnectionClosed):
        async with connected(server, **options) as page:
            for message in messages:
                await page.socket.send(message)
            while True:
                await page.hear()
    return page.socket.close_code, page.socket.close_reason


def _picture():
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(out, format="PNG")
    return out.getvalue()


PICTURE = _picture()
