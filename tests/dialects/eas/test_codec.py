"""Items on the wire of each codec: bytes as the official SDKs decode them."""

from __future__ import annotations

import base64
import json
import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor

from eas_queue.dialects.eas import codec, frames_pb2
from eas_queue.dialects.eas.codec import Codec
from eas_queue.engine import errors
from eas_queue.engine.items import Item

ROOT = Path(__file__).parents[3]
PROTOBUF = "application/vnd.google.protobuf"
JSON = "application/json"
JAVA = "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
ITEM = Item(7, {"requestId": "r-1", "a": "é"}, b"\x00\xff", "application/x-tensor")


# -------------------------------------------------------------------------------------------------------- negotiation


@pytest.mark.parametrize("accept", ["", "*/*", PROTOBUF, JSON, "image/png"])
def test_raw_is_raw_whatever_is_accepted(accept: str) -> None:
    assert codec.negotiate(accept, True) is Codec.RAW


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", Codec.JSON),
        ("*/*", Codec.JSON),
        (JSON, Codec.JSON),
        ("application/*", Codec.JSON),
        (JAVA, Codec.JSON),
        (BROWSER, Codec.JSON),
        (PROTOBUF, Codec.PROTOBUF),
        (PROTOBUF.upper(), Codec.PROTOBUF),
        (f"{PROTOBUF}; proto=streaming", Codec.PROTOBUF),
        (f"*/*, {PROTOBUF}", Codec.PROTOBUF),
        (f"{JSON}, {PROTOBUF}", Codec.PROTOBUF),
        (f"{JSON};q=0.9, {PROTOBUF};q=0.8", Codec.JSON),
        (f"{JSON};q=0.8, {PROTOBUF};q=0.9", Codec.PROTOBUF),
        (f"{JSON};q=0.1, */*;q=0.9, {PROTOBUF};q=0.5", Codec.PROTOBUF),
        (f"{PROTOBUF};q=0, */*", Codec.JSON),
        (f"{PROTOBUF};q=0.000, {JSON};q=0.001", Codec.JSON),
        (f"{PROTOBUF};q=nonsense", Codec.PROTOBUF),
        (",;,", Codec.JSON),
    ],
)
def test_frames_are_protobuf_where_it_is_named_and_not_liked_less(accept: str, expected: Codec) -> None:
    assert codec.negotiate(accept, False) is expected


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", Codec.RAW),
        ("*/*", Codec.RAW),
        ("application/*", Codec.RAW),
        (BROWSER, Codec.RAW),
        ("image/png", Codec.RAW),
        (f"{PROTOBUF};q=0", Codec.RAW),
        (PROTOBUF, Codec.PROTOBUF),
        (JSON, Codec.JSON),
        (f"{JSON}, text/plain, */*", Codec.JSON),
        (f"{JSON};q=0.5, {PROTOBUF};q=0.4", Codec.JSON),
    ],
)
def test_without_raw_a_codec_must_be_named(accept: str, expected: Codec) -> None:
    assert codec.negotiate(accept, None) is expected


@pytest.mark.parametrize("accept", ["image/png", "application/x-flatbuffers", "*/*;q=0", f"{JSON};q=0, */*"])
def test_frames_in_neither_codec_are_refused_with_what_to_send(accept: str) -> None:
    with pytest.raises(errors.InvalidRequest, match=f"neither {PROTOBUF} nor {JSON}"):
        codec.negotiate(accept, False)


# ------------------------------------------------------------------------------------------------------------- frames


def test_a_frame_is_what_the_reference_describes() -> None:
    frame = codec.encode_frame(ITEM)

    tags = b"\x12\x07\x0a\x01a\x12\x02\xc3\xa9" + b"\x12\x10\x0a\x09requestId\x12\x03r-1"
    assert frame == b"\x08\x07" + tags + b"\x1a\x02\x00\xff"


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 65_536, 2_000_000, 3_000_001])
def test_frames_of_every_size_are_those_of_protobuf_itself(size: int) -> None:
    data = random.Random(size).randbytes(size)
    item = Item(2**63 - 1, {"k": "v" * 300, "": ""}, data)
    expected = frames_pb2.DataFrameProto(index=item.index, tags=item.tags, data=data)

    assert codec.encode_frame(item) == expected.SerializeToString(deterministic=True)


def test_an_item_of_nothing_is_an_empty_frame_which_must_not_be_sent() -> None:
    assert codec.encode_frame(Item(0, {}, b"")) == b""


def test_a_chunk_of_a_watch_begins_with_its_length() -> None:
    item = Item(1, {}, b"x" * 1000)

    chunk = codec.http_watch_chunk(item)

    assert struct.unpack(">I", chunk[:4]) == (len(chunk) - 4,)
    assert chunk[4:] == codec.encode_frame(item)


def test_tags_that_no_utf8_can_hold_are_replaced() -> None:
    # percent-decoded with surrogateescape, or half a pair out of JSON
    item = Item(1, {"a\udcff": "b\ud83d", "pair": "\ud83d\ude00", "ok": "😀"}, b"")
    expected = {"a\ufffd": "b\ufffd", "pair": "\ufffd\ufffd", "ok": "😀"}

    assert frames_pb2.DataFrameProto.FromString(codec.encode_frame(item)).tags == expected
    assert json.loads(codec.encode_items([item], Codec.JSON)[0])[0]["tags"] == expected
    assert json.loads(codec.encode_attributes({"a\udcff": "b"}, protobuf=False)[0]) == {"a\ufffd": "b"}
    assert codec.encode_attributes({"\udcff": ""}, protobuf=True)[0]


def test_the_generated_code_is_that_of_the_proto_file() -> None:
    messages = frames_pb2.DESCRIPTOR.message_types_by_name
    fields = {
        (name, field.name): (field.number, field.type)
        for name, message in messages.items()
        for field in message.fields
        if not field.message_type
    }

    assert fields == {
        ("DataFrameProto", "index"): (1, descriptor.FieldDescriptor.TYPE_UINT64),
        ("DataFrameProto", "data"): (3, descriptor.FieldDescriptor.TYPE_BYTES),
        ("DataFrameProto", "message"): (4, descriptor.FieldDescriptor.TYPE_STRING),
    }
    assert messages["DataFrameProto"].fields_by_name["tags"].number == 2
    assert messages["DataFrameListProto"].fields_by_name["index"].number == 1
    assert messages["AttributesProto"].fields_by_name["attributes"].number == 1
    assert "package eas_queue;" in Path(frames_pb2.__file__).with_name("frames.proto").read_text()


# -------------------------------------------------------------------------------------------------------------- lists


def test_a_protobuf_list_holds_the_frames_in_order() -> None:
    items = [ITEM, Item(8, {}, b""), Item(9, {"x": "y"}, b"z" * 200_000)]

    body, content_type = codec.encode_items(items, Codec.PROTOBUF)

    assert content_type == PROTOBUF
    found = frames_pb2.DataFrameListProto.FromString(body)
    assert [(each.index, dict(each.tags), each.data, each.message) for each in found.index] == [
        (each.index, each.tags, each.data, "") for each in items
    ]
    assert codec.encode_items([], Codec.PROTOBUF) == (b"", PROTOBUF)


def test_a_json_list_is_that_of_the_go_encoder() -> None:
    body, content_type = codec.encode_items([ITEM, Item(8, {}, b"")], Codec.JSON)

    assert content_type == JSON
    assert body.decode() == (
        '[{"index":7,"tags":{"requestId":"r-1","a":"é"},"data":"AP8="},{"index":8,"tags":{},"data":""}]\n'
    )
    assert codec.encode_items([], Codec.JSON)[0] == b"[]\n"


@pytest.mark.parametrize("size", [1, 2, 3, 196_607, 196_608, 196_609, 3_000_001])
def test_base64_of_pieces_is_base64_of_the_whole(size: int) -> None:
    data = random.Random(size).randbytes(size)

    body, _ = codec.encode_items([Item(1, {'"\n': "\\"}, data)], Codec.JSON)

    [found] = json.loads(body)
    assert found["data"] == base64.b64encode(data).decode()
    assert found["tags"] == {'"\n': "\\"}


def test_one_raw_item_is_its_data_and_several_are_json_so_that_none_is_lost() -> None:
    assert codec.encode_items([ITEM], Codec.RAW) == (b"\x00\xff", "application/x-tensor")

    body, content_type = codec.encode_items([ITEM, ITEM], Codec.RAW)

    assert (content_type, len(json.loads(body))) == (JSON, 2)


def test_attributes_are_strings_in_both_codecs() -> None:
    attributes = {"meta.name": "résumé", "stream.length": "0"}

    body, content_type = codec.encode_attributes(attributes, protobuf=False)
    packed, packed_type = codec.encode_attributes(attributes, protobuf=True)

    assert (body.decode(), content_type) == ('{"meta.name":"résumé","stream.length":"0"}\n', JSON)
    assert packed_type == PROTOBUF
    assert frames_pb2.AttributesProto.FromString(packed).attributes == attributes


# ------------------------------------------------------------------------------------------------------- content type


@pytest.mark.parametrize(
    ("named", "data", "expected"),
    [
        ("image/png", b"text", "image/png"),
        ("application/json; charset=utf-8", b"{}", "application/json; charset=utf-8"),
        ("", b"text", "text/plain; charset=utf-8"),
        ("", b"", "text/plain; charset=utf-8"),
        ("", "é€😀".encode(), "text/plain; charset=utf-8"),
        ("", b"\xff\xfe", "application/octet-stream"),
        ("", "é".encode()[:1], "application/octet-stream"),
        ("application/x-www-form-urlencoded", b"text", "text/plain; charset=utf-8"),
        ("Application/X-WWW-Form-Urlencoded; charset=x", b"\xff", "application/octet-stream"),
    ],
)
def test_raw_data_has_the_type_its_sender_named_unless_that_is_curls(named: str, data: bytes, expected: str) -> None:
    assert codec.raw_content_type(Item(1, {}, data, named)) == expected


@pytest.mark.parametrize("before", [0, 1, 196_606, 196_607, 196_608])
def test_a_character_may_lie_across_two_pieces(before: int) -> None:
    text = b"a" * before + "€".encode() + b"b" * 1_000_000

    assert codec.sniff(text) == "text/plain; charset=utf-8"
    assert codec.sniff(text + b"\xe2\x82") == "application/octet-stream"


def test_large_data_does_not_keep_other_greenlets_waiting() -> None:
    command = [sys.executable, "-m", "gevent.monkey", "--module", "tests.support.codec_under_gevent"]

    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert ran.returncode == 0, ran.stderr
    in_base64, in_utf8, in_frame = map(int, ran.stdout.split())
    # some 80, 30 and 15 ms of work: at one go each would leave no turn, or one at either end
    assert in_base64 >= 4, ran.stdout
    assert in_utf8 >= 2, ran.stdout
    assert in_frame >= 1, ran.stdout
