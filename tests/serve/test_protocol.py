"""Messages: what is none is refused with a sentence, whatever came."""

import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relic_jax.serve import protocol
from relic_jax.serve.protocol import ProtocolError

CONTROL = {"type": "control", "seq": 3, "move": [0, 0, 1], "turn": [0.5, 0, 0]}


def test_a_control_is_read():
    message, payload = protocol.parse(json.dumps(CONTROL))
    assert message == protocol.Control(seq=3, move=(0.0, 0.0, 1.0), turn=(0.5, 0.0, 0.0)) and payload == b""


def test_parts_come_back():
    data = protocol.pack(protocol.Open(prompt="a room"), [b"picture"])
    assert data[:4] == struct.pack(">I", len(data) - 4 - 4 - len(b"picture"))
    message, payload = protocol.parse(data)
    assert message == protocol.Open(prompt="a room") and payload == b"picture"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("", "message: Invalid JSON"),
        ("[]", "message:"),
        ('{"type": "dance"}', "message: Input tag 'dance'"),
        ({**CONTROL, "seq": -1}, "control.seq"),
        ({**CONTROL, "seq": "3"}, "control.seq"),
        ({**CONTROL, "move": [0, 0]}, "control.move"),
        ({**CONTROL, "move": [0, 0, 17]}, "control.move.2"),
        ({**CONTROL, "extra": 1}, "control.extra"),
        ('{"type": "control", "seq": 3, "move": [0, 0, NaN], "turn": [0, 0, 0]}', "control.move.2"),
        ({"type": "open", "prompt": "x" * 1001}, "open.prompt"),
        ({"type": "open", "prompt": "x", "seed": 2**64}, "open.seed"),
        ({"type": "open", "prompt": "x", "codec": "gif"}, "open.codec"),
        (b"", "an empty message"),
        (b"\0\0\0", "a part's length is cut short"),
        (b"\0\0\0\x09{}", "a part is shorter than its length says"),
        (protocol.pack(protocol.Save(), [b"bytes"]), "no bytes are expected with save"),
        (protocol.pack(protocol.Open(prompt="x"), [b"1", b"2"]), "one part beside it, got 2"),
    ],
)
def test_what_is_no_message_is_refused(said, why):
    data = json.dumps(said) if isinstance(said, dict) else said
    with pytest.raises(ProtocolError) as raised:
        protocol.parse(data)
    assert why in str(raised.value)


def test_what_came_is_not_said_again():
    """It may be a token, or long."""
    with pytest.raises(ProtocolError) as raised:
        protocol.parse(json.dumps({"type": "hello", "token": "secret" * 100}))
    assert "secret" not in str(raised.value)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
JSON = SCALARS | st.lists(SCALARS, max_size=4)
KINDS = st.sampled_from(["hello", "open", "load", "control", "ack", "reset", "branch", "record", "ping"])
FIELDS = st.sampled_from(["token", "seq", "move", "turn", "prompt", "seed", "blocks", "epoch", "on", "at"])
NEAR = st.builds(
    lambda kind, rest: json.dumps({**rest, "type": kind}), KINDS, st.dictionaries(FIELDS, JSON, max_size=3)
)
ANYTHING = st.one_of(st.text(max_size=60), st.binary(max_size=60), JSON.map(json.dumps), NEAR)


@settings(max_examples=500)
@given(ANYTHING)
def test_anything_is_a_message_or_a_sentence(data):
    read(data)


@pytest.mark.slow
@settings(max_examples=10_000)
@given(ANYTHING)
def test_ten_thousand_messages(data):
    read(data)


def read(data):
    try:
        message, _ = protocol.parse(data)
    except ProtocolError as error:
        assert 0 < len(str(error)) < 300
    else:
        assert message == protocol.parse(message.model_dump_json())[0]
