"""The messages between page and server, typed; docs/play.md tells how they follow each other.

A message is a JSON object with a `type`. Where bytes come with it (a block's frames, a picture, a file), it is one
binary WebSocket message of parts, each with its length before it as a 32-bit big-endian number; the first part is
the JSON object. Bodies are checked before use: what isn't here, or isn't in range, ends the connection with a reason.

Times are seconds of the server's monotonic clock; Pong tells the page how that stands to its own.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

PROTOCOL_VERSION = 1  # the page says it in the address, ?protocol_version=1; another is refused

MAX_PROMPT = 1000  # characters
MAX_AXIS = 16.0  # times the usual speed, per axis
_LENGTH = struct.Struct(">I")

Codec = Literal["jpeg", "h264"]
Seed = Annotated[int, Field(ge=0, lt=2**64)]
Count = Annotated[int, Field(ge=0, lt=2**53)]
Axis = Annotated[float, Field(ge=-MAX_AXIS, le=MAX_AXIS)]
Prompt = Annotated[str, Field(max_length=MAX_PROMPT)]


class Close(enum.IntEnum):
    """Why the server ends a connection; the WebSocket's close code, with a sentence beside it."""

    MALFORMED = 4400
    TOKEN = 4401
    VERSION = 4406
    TIMEOUT = 4408
    BUSY = 4409
    TOO_LARGE = 4413
    TOO_MANY = 4429
    FAILED = 4500


class ProtocolError(Exception):
    """A message that this protocol doesn't have; ends the connection."""

    def __init__(self, why: str, code: Close = Close.MALFORMED):
        super().__init__(why)
        self.code = code


class Message(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


# From the page.


class Hello(Message):
    """First of all, always."""

    type: Literal["hello"] = "hello"
    token: Annotated[str, Field(max_length=256)] = ""


class Open(Message):
    """Begin a world: with a bundled scene, or with the picture whose bytes come with the message."""

    type: Literal["open"] = "open"
    scene: Annotated[str, Field(max_length=64)] | None = None
    prompt: Prompt
    seed: Seed = 0
    codec: Codec = "jpeg"


class Load(Message):
    """Go on with a saved session, whose bytes come with the message."""

    type: Literal["load"] = "load"
    codec: Codec = "jpeg"


class Control(Message):
    """What is held now. The server takes the newest when a block begins.

    Fields:
      seq: grows with every change.
      move: right, up, forward. turn: pan right, tilt up, roll clockwise. In units of a key held.
    """

    type: Literal["control"] = "control"
    seq: Count
    move: tuple[Axis, Axis, Axis]
    turn: tuple[Axis, Axis, Axis]


class Ack(Message):
    """A block's first frame is on the screen.

    Fields:
      early: seconds that the block had waited for that; negative: how long the picture stood still for it. None where
        there was nothing before it.
    """

    type: Literal["ack"] = "ack"
    epoch: Count
    block: Count
    early: Annotated[float, Field(ge=-3600, le=3600)] | None = None


class Pause(Message):
    type: Literal["pause"] = "pause"
    on: bool


class Reset(Message):
    """The same picture and prompt from the beginning, with this seed."""

    type: Literal["reset"] = "reset"
    seed: Seed = 0


class Branch(Message):
    """Back to where so many blocks had been made; with the noise of another seed, or (None) the same."""

    type: Literal["branch"] = "branch"
    blocks: Count
    seed: Seed | None = None


class Describe(Message):
    """Another prompt from the next block on."""

    type: Literal["describe"] = "describe"
    prompt: Prompt


class Record(Message):
    """Begin to record, or end it: then the video and its log come as files."""

    type: Literal["record"] = "record"
    on: bool


class Save(Message):
    """The session as a file."""

    type: Literal["save"] = "save"


class Attention(Message):
    """Whether blocks are to say what of the memory they attend to."""

    type: Literal["attention"] = "attention"
    on: bool


class Ping(Message):
    type: Literal["ping"] = "ping"
    at: float  # the page's own time, which Pong gives back


FromPage = (
    Hello | Open | Load | Control | Ack | Pause | Reset | Branch | Describe | Record | Save | Attention | Ping
)  # fmt: skip
UPLOADS = (Open, Load)
_FROM_PAGE: TypeAdapter[FromPage] = TypeAdapter(Annotated[FromPage, Field(discriminator="type")])


# From the server.


class Scene(Message):
    """A bundled start; its picture is at `picture`."""

    name: str
    title: str
    prompt: str
    picture: str


class Welcome(Message):
    """What there is here, after Hello."""

    type: Literal["welcome"] = "welcome"
    model: str
    version: str
    height: int
    width: int
    fps: int
    block: int  # frames
    first: int  # frames of the very first block, the picture included
    codecs: list[Codec]
    scenes: list[Scene]
    max_prompt: int
    max_upload: int  # bytes
    max_record: float  # seconds


class Warming(Message):
    """The model isn't ready; `done` of `total` parts are."""

    type: Literal["warming"] = "warming"
    done: int
    total: int
    what: str


class Waiting(Message):
    """Others are playing; `place` in the queue, 0 when it is this page's turn."""

    type: Literal["waiting"] = "waiting"
    place: int


class Opened(Message):
    """A world stands: after Open, Load, Reset and Branch. Blocks of earlier epochs are to be dropped."""

    type: Literal["opened"] = "opened"
    epoch: int
    blocks: int  # that it has already
    prompt: str
    seed: str  # of 64 bits, which the page's numbers don't have
    notes: list[str]
    path: list[tuple[float, float]]  # where the camera was: x and z after each block


class Described(Message):
    type: Literal["described"] = "described"
    prompt: str
    notes: list[str]


class Recording(Message):
    type: Literal["recording"] = "recording"
    on: bool


class Refused(Message):
    """Something asked for can't be done; all stays as it is."""

    type: Literal["refused"] = "refused"
    why: str


class Pong(Message):
    type: Literal["pong"] = "pong"
    at: float
    time: float
    memory_bytes: int  # of the server's process


class Pose(Message):
    """Of a block's last frame: camera centre (x right, y down, z forward at the start), degrees."""

    position: tuple[float, float, float]
    yaw: float
    pitch: float
    roll: float


class Memory(Message):
    """What the next block will see, oldest first.

    Fields:
      held: number and pooling factor of each latent. mass: what the newest view attends to of each, in sum 1 (None: not
        asked for).
    """

    held: list[tuple[int, int]]
    mass: list[float] | None


class Block(Message):
    """A block's header; its frames are the further parts: a JPEG each, or a packet each of H.264 (Annex B).

    Fields:
      block: its number. seq: newest control that it applied. start, end: when it was made. key: decoding can begin
        here.
    """

    type: Literal["block"] = "block"
    epoch: int
    block: int
    seq: int
    start: float
    end: float
    codec: Codec
    key: bool
    pose: Pose
    memory: Memory


class File(Message):
    """A file to keep; its bytes are the other part."""

    type: Literal["file"] = "file"
    name: str
    media: str


def parse(data: str | bytes) -> tuple[FromPage, bytes]:
    """A message of the page, and the bytes that came with it (Open, Load).

    Raises:
      ProtocolError: it is none; a sentence without what the message said.
    """
    payload = b""
    if isinstance(data, bytes):
        data, *rest = unpack(data)
        if len(rest) != 1:
            raise ProtocolError(f"expected a message and one part beside it, got {len(rest)}")
        payload = rest[0]
    try:
        message = _FROM_PAGE.validate_json(data)
    except ValidationError as error:
        raise ProtocolError(_sentence(error)) from None
    if payload and not isinstance(message, UPLOADS):
        raise ProtocolError(f"no bytes are expected with {message.type}")
    return message, payload


def pack(message: Message, parts: Sequence[bytes]) -> bytes:
    """One binary message of a header and what comes with it."""
    chunks = [message.model_dump_json().encode(), *parts]
    return b"".join(piece for chunk in chunks for piece in (_LENGTH.pack(len(chunk)), chunk))


def unpack(data: bytes) -> list[bytes]:
    """The parts of a binary message; at least one.

    Raises:
      ProtocolError: the lengths don't add up.
    """
    parts, at = [], 0
    while at < len(data):
        if at + _LENGTH.size > len(data):
            raise ProtocolError("a part's length is cut short")
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if at + length > len(data):
            raise ProtocolError("a part is shorter than its length says")
        parts.append(data[at : at + length])
        at += length
    if not parts:
        raise ProtocolError("an empty message")
    return parts


def _sentence(error: ValidationError) -> str:
    """What is wrong first, and where; never what came, which may be long or secret."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part)[:32] for part in first["loc"]) or "message"
    return f"{where}: {first['msg']}"
