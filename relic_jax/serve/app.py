"""The web application: a page, one WebSocket, and what operators ask for.

    /           the page        /ws        the WebSocket (protocol)
    /healthz    it runs         /readyz    it is warm, or how far
    /metrics    for Prometheus; asks for the token as a bearer, where there is one

Only pages of the server's own origin may connect. Bound to the loopback it answers to the loopback's names alone, so
that no page elsewhere reaches it under a name of its own (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hmac
import importlib.metadata
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from relic_jax.serve import protocol, scenes
from relic_jax.serve.engine import Engine
from relic_jax.serve.limits import Limits
from relic_jax.serve.lobby import Lobby
from relic_jax.serve.metrics import Metrics
from relic_jax.serve.player import Player, Services, receive
from relic_jax.serve.protocol import PROTOCOL_VERSION, Close, ProtocolError
from relic_jax.serve.walks import Model

STATIC = Path(__file__).parent / "static"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_HELLO_SECONDS = 10
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; style-src 'self'; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_log = logging.getLogger("relic_jax.serve")


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a server is run.

    Fields:
      batch: users who play at once. waiting: more who may wait. token: asked of everybody; empty: nobody.
      hosts: names that it answers to; empty: all. codecs: that pages may ask for. quality: of JPEG.
    """

    batch: int = 1
    waiting: int = 8
    token: str = ""
    hosts: tuple[str, ...] = LOOPBACK
    codecs: tuple[protocol.Codec, ...] = ("jpeg",)
    quality: int = 90
    limits: Limits = Limits()


class Server:
    """One model and its users."""

    def __init__(self, model: Model, settings: Settings):
        self._settings = settings
        self.metrics = Metrics()
        self._engine = Engine(model, settings.batch, self.metrics)
        lobby = Lobby(settings.batch, settings.waiting, self.metrics)
        self._scenes = scenes.Scenes()
        self._services = Services(self._engine, lobby, self._scenes, settings.limits, self.metrics, settings.quality)

    @contextlib.asynccontextmanager
    async def run(self, app: Starlette) -> AsyncIterator[None]:
        """The application's lifespan: the engine runs in it."""
        del app
        engine = asyncio.create_task(self._engine.run())
        engine.add_done_callback(_say_why)
        yield
        engine.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await engine
        await asyncio.to_thread(self._engine.close)

    async def healthz(self, request: Request) -> Response:
        del request
        return PlainTextResponse("ok\n")

    async def readyz(self, request: Request) -> Response:
        del request
        ready, warming = self._engine.ready.is_set(), self._engine.warming
        self.metrics.ready.set(int(ready))
        state = {"ready": ready, "done": warming.done, "total": warming.total, "what": warming.what}
        return JSONResponse(state, 200 if ready else 503)

    async def show_metrics(self, request: Request) -> Response:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not self._token_fits(given):
            return PlainTextResponse("this needs the token as a bearer\n", 401)
        self.metrics.ready.set(int(self._engine.ready.is_set()))
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4")

    async def socket(self, socket: WebSocket) -> None:
        """One connection from its beginning to its end, which has a reason."""
        if not _same_origin(socket):
            await socket.close(4403)  # before it is accepted: HTTP 403
            return
        await socket.accept()
        try:
            await self._play(socket)
        except WebSocketDisconnect:
            pass
        except ProtocolError as error:
            await self._close(socket, error.code, str(error))
        except Exception:
            _log.exception("a session failed")
            await self._close(socket, Close.FAILED, "the session failed on the server; its log says why")

    async def _play(self, socket: WebSocket) -> None:
        asked = socket.query_params.get("protocol_version", "none")
        if asked != str(PROTOCOL_VERSION):
            why = f"this server speaks protocol_version {PROTOCOL_VERSION}, the page {asked[:8]}; load the page anew"
            raise ProtocolError(why, Close.VERSION)
        try:
            async with asyncio.timeout(_HELLO_SECONDS):
                hello, _ = await receive(socket)
        except TimeoutError:
            raise ProtocolError("no hello came", Close.TIMEOUT) from None
        if not isinstance(hello, protocol.Hello):
            raise ProtocolError("hello comes first")
        if not self._token_fits(hello.token):
            raise ProtocolError("this server asks for a token", Close.TOKEN)
        player = Player(socket, self._services)
        await player.say(self._welcome())
        await player.run()

    def _welcome(self) -> protocol.Welcome:
        shape, limits = self._engine.model.shape, self._settings.limits
        return protocol.Welcome(
            model=self._engine.model.name,
            version=importlib.metadata.version("relic-jax"),
            height=shape.height,
            width=shape.width,
            fps=shape.fps,
            block=shape.block,
            first=shape.first,
            codecs=list(self._settings.codecs),
            scenes=self._scenes.all,
            max_prompt=protocol.MAX_PROMPT,
            max_upload=limits.upload,
            max_record=float(limits.record),
        )

    def _token_fits(self, given: str) -> bool:
        """In a time that doesn't tell how much of it fits."""
        return not self._settings.token or hmac.compare_digest(given.encode(), self._settings.token.encode())

    async def _close(self, socket: WebSocket, code: int, why: str) -> None:
        self.metrics.closed.labels(str(int(code))).inc()
        reason = why.encode()[:123].decode(errors="ignore")  # all that a close frame has room for
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):  # it is closed already
            await socket.close(int(code), reason)


def application(model: Model, settings: Settings) -> Starlette:
    """The server of a model, for an ASGI server to run."""
    server = Server(model, settings)
    routes = [
        Route("/healthz", server.healthz),
        Route("/readyz", server.readyz),
        Route("/metrics", server.show_metrics),
        WebSocketRoute("/ws", server.socket),
        Mount("/scenes", StaticFiles(directory=scenes.FOLDER)),
        Mount("/", StaticFiles(directory=STATIC, html=True)),
    ]
    hosts = [f"[{host}]" if ":" in host else host for host in settings.hosts] or ["*"]
    middleware = [Middleware(_Headers), Middleware(TrustedHostMiddleware, allowed_hosts=hosts)]
    return Starlette(routes=routes, middleware=middleware, lifespan=server.run)


class _Headers:
    """Says to browsers, with every answer, that the page needs nothing from elsewhere."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                extra = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *extra]}
            await send(message)

        await self._app(scope, receive, sent)


def _same_origin(socket: WebSocket) -> bool:
    """Whether the page that connects came from here; programs that are no browsers send no origin."""
    origin = socket.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == socket.headers.get("host", "")


def _say_why(engine: asyncio.Task[None]) -> None:
    """Where the engine ends by itself, nobody gets a block any more."""
    if not engine.cancelled() and engine.exception() is not None:
        _log.error("the model can't be run", exc_info=engine.exception())
