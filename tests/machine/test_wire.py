"""gdb packets and QMP lines: what is written is read back, and any bytes give events or a WireError."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.errors import WireError
from tightrope.machine import wire
from tightrope.machine.wire import Ack, Failed, GdbReader, Greeting, Happened, Packet, QmpReader

GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 22}}, "capabilities": []}}


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """The same bytes in the pieces that a socket might give."""
    at = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)]


@given(st.lists(st.binary(max_size=200), max_size=5), st.lists(st.integers(0, 10**6), max_size=8))
def test_packets_come_back_whole_however_the_bytes_come(
    payloads: list[bytes], cuts: list[int]
) -> None:
    data = b"+".join(wire.packet(each) for each in payloads)
    reader = GdbReader()
    events = [event for piece in pieces(data, cuts) for event in reader.feed(piece)]
    assert [each.payload for each in events if isinstance(each, Packet)] == payloads
    assert all(each.good for each in events if isinstance(each, Ack))


def test_a_packet_is_what_the_manual_says() -> None:
    # GDB manual, E.1: the checksum is the sum of all characters between $ and #, modulo 256.
    assert wire.packet(b"m0,4") == b"$m0,4#fd"
    assert wire.packet(b"a#b") == b"$a}\x03b#43"


def test_run_lengths_unfold() -> None:
    # The manual's own example: "0* " stands for "0000".
    assert GdbReader().feed(b"$0* #7a") == (Packet(b"0000"),)


@pytest.mark.parametrize(("count", "told"), [(28, False), (29, True), (126, True), (127, False)])
def test_a_run_length_is_a_printable_character(count: int, told: bool) -> None:
    body = b"0*" + bytes([count])
    data = b"$%b#%02x" % (body, sum(body) & 0xFF)
    if told:
        assert GdbReader().feed(data) == (Packet(b"0" * (count - 28)),)
    else:
        with pytest.raises(WireError, match="repeats nothing"):
            GdbReader().feed(data)


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"$abc#00",
        b"$abc#zz",
        b"$}#7d",
        b"$*#2a",
        b"$a*#8b",
        b"$a*\x1c#a7",
        b"$" + b"a" * (wire.PACKET_LIMIT + 4),
        b"$a" + b"*~" * 11000 + b"#%02x" % ((ord("a") + 11000 * (ord("*") + ord("~"))) & 0xFF),
    ],
)
def test_what_is_no_packet_is_an_error(data: bytes) -> None:
    with pytest.raises(WireError):
        GdbReader().feed(data)


def test_an_unfinished_packet_is_waited_for() -> None:
    reader = GdbReader()
    assert reader.feed(b"$OK") == ()
    assert reader.feed(b"#9") == ()
    assert reader.feed(b"a-") == (Packet(b"OK"), Ack(False))


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_any_bytes_from_a_stub_are_events_or_a_wire_error(data: list[bytes]) -> None:
    reader = GdbReader()
    with suppress(WireError):
        for each in data:
            for event in reader.feed(each):
                assert isinstance(event, Packet | Ack)


@pytest.mark.parametrize(
    ("payload", "thread"),
    [(b"T05thread:02;", 2), (b"T05watch:1000;thread:1f;", 0x1F), (b"T05", None), (b"S05", None),
     (b"T05thread:;", None), (b"T05thread:p01.02;", None)],
)  # fmt: skip
def test_a_stop_may_name_the_cpu_that_stopped(payload: bytes, thread: int | None) -> None:
    assert wire.stop_thread(payload) == thread


@given(st.binary(max_size=40))
def test_any_payload_is_a_stop_a_number_or_a_wire_error(payload: bytes) -> None:
    for read in (wire.stop_signal, wire.register_bytes):
        with suppress(WireError):
            assert read(payload) is not None


def test_stop_replies_and_registers_are_read() -> None:
    assert wire.stop_signal(b"T05thread:01;") == wire.SIGNAL_TRAP
    assert wire.stop_signal(b"S03") == wire.SIGNAL_QUIT
    assert wire.register_bytes(b"78563412xxxx") == b"\x78\x56\x34\x12\0\0"
    assert wire.is_farewell(b"W00")
    assert not wire.is_farewell(b"T05")
    for bad in (b"OK", b"T", b"Tzz", b"T+5"):
        with pytest.raises(WireError):
            wire.stop_signal(bad)
    with pytest.raises(WireError):
        wire.register_bytes(b"E22")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, st.integers(), st.lists(st.integers(0, 10**6), max_size=6))
def test_what_qemu_returned_is_read_back(value: object, number: int, cuts: list[int]) -> None:
    data = json.dumps({"return": value, "id": number}).encode() + b"\r\n"
    reader = QmpReader()
    events = [event for piece in pieces(data, cuts) for event in reader.feed(piece)]
    assert events == [wire.Returned(number, value)]


def test_the_four_kinds_of_line_are_told_apart() -> None:
    lines = [
        GREETING,
        {"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 2}},
        {"error": {"class": "GenericError", "desc": "no"}, "id": 3},
        {"return": {}, "id": 4},
    ]
    got = QmpReader().feed(b"\n".join(json.dumps(line).encode() for line in lines) + b"\n")
    assert got == (
        Greeting((7, 2, 22)),
        Happened("STOP", {}),
        Failed(3, "GenericError", "no"),
        wire.Returned(4, {}),
    )


def test_a_command_is_one_line_of_json() -> None:
    line = wire.command("stop", {"x": 1}, 7)
    assert line.count(b"\n") == 1
    assert json.loads(line) == {"execute": "stop", "arguments": {"x": 1}, "id": 7}


@pytest.mark.parametrize(
    "line",
    [
        b"no json",
        b"7",
        b"{}",
        b'{"QMP": {"version": 7}}',
        b'{"QMP": []}',
        b'{"QMP": {"version": {"qemu": {"major": "7", "minor": 2, "micro": 1}}}}',
        b'{"event": 7}',
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"return": ' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_no_qmp_is_an_error(line: bytes) -> None:
    with pytest.raises(WireError):
        QmpReader().feed(line + b"\n")


def test_a_line_without_an_end_is_an_error() -> None:
    with pytest.raises(WireError):
        QmpReader().feed(b" " * (wire.LINE_LIMIT + 1))


@given(st.lists(st.binary(max_size=80), max_size=4))
def test_any_bytes_from_qmp_are_events_or_a_wire_error(data: list[bytes]) -> None:
    reader = QmpReader()
    with suppress(WireError):
        for each in data:
            assert isinstance(reader.feed(each + b"\n"), tuple)
