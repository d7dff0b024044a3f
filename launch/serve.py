"""Serves the world in a browser; `make play` runs it and opens the page.

    python -m launch.serve --config=configs/tiny.py [--checkpoint=DIR] [--host=127.0.0.1] [--port=8123] [--open]
        [--batch=1] [--waiting=8] [--token=SECRET] [--idle=600] [--codec=jpeg|h264] [--quality=90] [--fake]

It runs until Ctrl-C or SIGTERM (exit code 130 or 143), which end the block at hand first. Only this machine reaches it
by default; for others give --host and --token. Over SSH forward the port: ssh -L 8123:localhost:8123 HOST.

W S A D E Q move, I K J L or the mouse turn, O U roll, Shift is faster; H shows all keys. docs/play.md tells the rest.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from absl import flags

import relic_jax
from launch import cli
from relic_jax import outside
from relic_jax.config import RelicConfig
from relic_jax.errors import InputError
from relic_jax.models import bundle

cli.config_flag("configs/tiny.py")
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", str(Path(relic_jax.__file__).parent / "assets" / "tiny"), "folder of the model"
)
_HOST = flags.DEFINE_string("host", "127.0.0.1", "address to listen at; another than the loopback needs --token")
_PORT = flags.DEFINE_integer("port", 8123, "port to listen at; 0 takes a free one", 0, 65535)
_TOKEN = flags.DEFINE_string("token", "", "what pages have to know; given in the address: http://HOST:PORT/#SECRET")
_BATCH = flags.DEFINE_integer("batch", 1, "users who play at once, in one step", 1, 64)
_WAITING = flags.DEFINE_integer("waiting", 8, "users who may wait in the queue; 0 refuses them", 0, 1000)
_IDLE = flags.DEFINE_float("idle", 600, "seconds without a key after which a session ends")
_CODEC = flags.DEFINE_enum("codec", "jpeg", ["jpeg", "h264"], "h264: for pages that can decode it, JPEG for others")
_QUALITY = flags.DEFINE_integer("quality", 90, "of the JPEGs", 1, 100)
_FAKE = flags.DEFINE_bool("fake", False, "a moving test pattern in place of the model")
_FAKE_SECONDS = flags.DEFINE_float("fake_seconds", 0.2, "that the test pattern pretends to take for a block", 0, 60)
_OPEN = flags.DEFINE_bool("open", False, "open the page in a browser")


def main(argv: Sequence[str]) -> None:
    del argv
    cfg = cli.load_config(RelicConfig)
    local = _is_loopback(_HOST.value)
    if not local and not _TOKEN.value:
        raise InputError(f"--host={_HOST.value} is open to others, which needs --token")
    idle = outside.number(_IDLE.value, "--idle", above=0)
    try:
        import uvicorn

        from relic_jax.serve import app, codec, fake, limits, relic
    except ImportError as error:
        raise InputError(f"serving needs {error.name}: install relic-jax[serve]") from error
    model = fake.Fake(seconds=_FAKE_SECONDS.value) if _FAKE.value else relic.Relic(bundle.load(_CHECKPOINT.value, cfg))
    if _CODEC.value == "h264":
        codec.check_h264(model.shape.height, model.shape.width, model.shape.fps)
    settings = app.Settings(
        batch=_BATCH.value,
        waiting=_WAITING.value,
        token=_TOKEN.value,
        hosts=app.LOOPBACK if local else (),
        codecs=("jpeg", "h264") if _CODEC.value == "h264" else ("jpeg",),
        quality=_QUALITY.value,
        limits=limits.Limits(idle=idle),
    )
    listening = _listen(_HOST.value, _PORT.value)
    address = f"http://{_name(_HOST.value)}:{listening.getsockname()[1]}/"
    print(f"{address}  (Ctrl-C ends it)", flush=True)
    if _OPEN.value:
        threading.Timer(0.5, webbrowser.open, [f"{address}#{_TOKEN.value}" if _TOKEN.value else address]).start()
    config = uvicorn.Config(
        app.application(model, settings),
        log_level="warning",
        access_log=False,
        ws="websockets-sansio",
        ws_max_size=settings.limits.upload,
        ws_per_message_deflate=False,  # JPEGs don't become smaller
        timeout_graceful_shutdown=10,
    )
    uvicorn.Server(config).run(sockets=[listening])


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _name(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        raise InputError(f"--host={host} --port={port} can't be listened at: {error.strerror}") from error


if __name__ == "__main__":
    cli.run(main)
