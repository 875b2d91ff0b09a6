"""What a filter says, as packets, and what is refused because an MTA would not take it.

ATTACKS.md rows: P06, P16.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailguard_milter import protocol
from mailguard_milter.protocol import (
    SMFIF_ADDHDRS,
    SMFIF_SETSYMLIST,
    SMFIM_CONNECT,
    SMFIM_EOH,
    SMFIP_HDR_LEADSPC,
    add_header,
    add_recipient,
    change_from,
    change_header,
    delete_recipient,
    insert_header,
    negotiate,
    quarantine,
    replace_body,
    reply_code,
)
from mailguard_milter.protocol_replies import MAX_DATA, MAX_REPLY_LINES
from milter_packets import packet

# As mfdef.h has them, so that a slip in our numbers is noticed.
PACKETS: list[tuple[str, bytes, bytes]] = [
    ("accept", protocol.ACCEPT, packet(b"a")),
    ("continue", protocol.CONTINUE, packet(b"c")),
    ("discard", protocol.DISCARD, packet(b"d")),
    ("progress", protocol.PROGRESS, packet(b"p")),
    ("reject", protocol.REJECT, packet(b"r")),
    ("skip", protocol.SKIP, packet(b"s")),
    ("tempfail", protocol.TEMPFAIL, packet(b"t")),
    (
        "negotiate",
        negotiate(6, SMFIF_ADDHDRS, SMFIP_HDR_LEADSPC),
        packet(b"O", b"\0\0\0\6" + b"\0\0\0\1" + b"\0\x10\0\0"),
    ),
    (
        "symbols",
        negotiate(6, SMFIF_SETSYMLIST, 0, {SMFIM_CONNECT: b"j {daemon_name}", SMFIM_EOH: b""}),
        packet(b"O", b"\0\0\0\6\0\0\1\0\0\0\0\0" + b"\0\0\0\0j {daemon_name}\0" + b"\0\0\0\6\0"),
    ),
    ("reply", reply_code(b"550", b"5.7.1", b"no"), packet(b"y", b"550 5.7.1 no\0")),
    ("reply, no text", reply_code(b"451", b"4.3.0", b""), packet(b"y", b"451 4.3.0 \0")),
    ("reply, percent", reply_code(b"451", b"4.7.1", b"100%s%"), packet(b"y", b"451 4.7.1 100%%s%%\0")),
    (
        "reply, lines",
        reply_code(b"550", b"5.7.1", b"one\r\n\r\nthree"),
        packet(b"y", b"550-5.7.1 one\r\n550-5.7.1 \r\n550 5.7.1 three\0"),
    ),
    ("add", add_header(b"X-A", b" b"), packet(b"h", b"X-A\0 b\0")),
    ("add, empty", add_header(b"X-A", b""), packet(b"h", b"X-A\0\0")),
    ("insert", insert_header(0, b"X-A", b" b\n\tc\n d"), packet(b"i", b"\0\0\0\0X-A\0 b\n\tc\n d\0")),
    ("insert, 8-bit", insert_header(1, b"X-A", b" \xff"), packet(b"i", b"\0\0\0\1X-A\0 \xff\0")),
    ("change", change_header(2, b"X-A", b" b"), packet(b"m", b"\0\0\0\2X-A\0 b\0")),
    ("delete", change_header(1, b"X-A", b""), packet(b"m", b"\0\0\0\1X-A\0\0")),
    ("last index", change_header(0x7FFF_FFFF, b"X", b""), packet(b"m", b"\x7f\xff\xff\xffX\0\0")),
    ("quarantine", quarantine(b"a reason"), packet(b"q", b"a reason\0")),
    ("quarantine, no reason", quarantine(b""), packet(b"q", b"\0")),
    ("from", change_from(b"<a@us.test>"), packet(b"e", b"<a@us.test>\0")),
    ("from, parameters", change_from(b"<>", b"SIZE=1 BODY=7BIT"), packet(b"e", b"<>\0SIZE=1 BODY=7BIT\0")),
    ("recipient", add_recipient(b"<a@us.test>"), packet(b"+", b"<a@us.test>\0")),
    ("recipient, parameters", add_recipient(b"<a@b>", b"NOTIFY=NEVER"), packet(b"2", b"<a@b>\0NOTIFY=NEVER\0")),
    ("no recipient", delete_recipient(b"<a@us.test>"), packet(b"-", b"<a@us.test>\0")),
    ("body", replace_body(b"a\0\r\n"), packet(b"b", b"a\0\r\n")),
    ("body, empty", replace_body(b""), packet(b"b")),
    ("body, largest", replace_body(bytes(MAX_DATA)), packet(b"b", bytes(MAX_DATA))),
    (
        "inserted, largest",
        insert_header(0, b"X", b"y" * 65_528),
        packet(b"i", b"\0\0\0\0X\0" + b"y" * 65_528 + b"\0"),
    ),
    ("field, largest", add_header(b"X", b"y" * (MAX_DATA - 3)), packet(b"h", b"X\0" + b"y" * (MAX_DATA - 3) + b"\0")),
]


@pytest.mark.attack("P16")
@pytest.mark.parametrize(("made", "octets"), [row[1:] for row in PACKETS], ids=[row[0] for row in PACKETS])
def test_packets(made: bytes, octets: bytes) -> None:
    assert made == octets


REFUSED: list[tuple[str, Callable[[], bytes]]] = [
    ("version 1", lambda: negotiate(1, 0, 0)),
    ("version 7", lambda: negotiate(7, 0, 0)),
    ("actions of 33 bits", lambda: negotiate(6, 1 << 32, 0)),
    ("negative steps", lambda: negotiate(6, 0, -1)),
    ("symbols without the flag", lambda: negotiate(6, SMFIF_ADDHDRS, 0, {SMFIM_CONNECT: b"j"})),
    ("symbols of no stage", lambda: negotiate(6, SMFIF_SETSYMLIST, 0, {7: b"j"})),
    ("symbols with NUL", lambda: negotiate(6, SMFIF_SETSYMLIST, 0, {SMFIM_CONNECT: b"j\0i"})),
    ("symbols, too long", lambda: negotiate(6, SMFIF_SETSYMLIST, 0, {SMFIM_CONNECT: b"j" * 65_536})),
    ("code 250", lambda: reply_code(b"250", b"2.0.0", b"")),
    ("code of two digits", lambda: reply_code(b"55", b"5.0.0", b"")),
    ("code with a line", lambda: reply_code(b"550\n", b"5.0.0", b"")),
    ("enhanced code of another class", lambda: reply_code(b"550", b"4.7.1", b"")),
    ("no enhanced code", lambda: reply_code(b"550", b"", b"")),
    ("enhanced code, too long", lambda: reply_code(b"550", b"5.7.1000", b"")),
    ("reply with LF", lambda: reply_code(b"550", b"5.7.1", b"a\nb")),
    ("reply with CR", lambda: reply_code(b"550", b"5.7.1", b"a\rb")),
    ("reply with NUL", lambda: reply_code(b"550", b"5.7.1", b"a\0b")),
    ("reply with ESC", lambda: reply_code(b"550", b"5.7.1", b"\x1b[2J")),
    ("reply, 8-bit", lambda: reply_code(b"550", b"5.7.1", b"\xff")),
    ("reply line, too long", lambda: reply_code(b"550", b"5.7.1", b"x" * 501)),
    ("reply, too many lines", lambda: reply_code(b"550", b"5.7.1", b"\r\n" * MAX_REPLY_LINES)),
    ("no name", lambda: add_header(b"", b" x")),
    ("name with colon", lambda: add_header(b"X:", b" x")),
    ("name with blank", lambda: insert_header(0, b"X ", b" x")),
    ("name with LF", lambda: insert_header(0, b"X\n", b" x")),
    ("name with NUL", lambda: change_header(1, b"X\0", b"")),
    ("name, 8-bit", lambda: change_header(1, b"\xff", b"")),
    ("value with NUL", lambda: add_header(b"X", b" a\0b")),
    ("value with CR", lambda: add_header(b"X", b" a\r\n b")),
    ("value with another field", lambda: insert_header(0, b"X", b" a\nFrom: b")),
    ("value with the end of the header", lambda: insert_header(0, b"X", b" a\n\nb")),
    ("value that ends with LF", lambda: change_header(1, b"X", b" a\n")),
    ("value, too long", lambda: add_header(b"X", b"y" * (MAX_DATA - 2))),
    ("inserted value, too long", lambda: insert_header(0, b"X", b"y" * (MAX_DATA - 6))),
    ("position -1", lambda: insert_header(-1, b"X", b" a")),
    ("position of 32 bits", lambda: insert_header(1 << 31, b"X", b" a")),
    ("field 0", lambda: change_header(0, b"X", b"")),
    ("field of 32 bits", lambda: change_header(1 << 31, b"X", b"")),
    ("reason with LF", lambda: quarantine(b"a\nb")),
    ("reason with NUL", lambda: quarantine(b"a\0b")),
    ("reason, too long", lambda: quarantine(b"x" * MAX_DATA)),
    ("no sender", lambda: change_from(b"")),
    ("sender with CR", lambda: change_from(b"<a@b>\r")),
    ("sender with NUL", lambda: change_from(b"<a@b>\0SIZE=1")),
    ("parameters with NUL", lambda: change_from(b"<a@b>", b"A\0B")),
    ("no recipient", lambda: add_recipient(b"")),
    ("recipient with LF", lambda: add_recipient(b"<a@b>\n")),
    ("parameters with LF", lambda: add_recipient(b"<a@b>", b"A\n")),
    ("nobody less", lambda: delete_recipient(b"")),
    ("body, too long", lambda: replace_body(bytes(MAX_DATA + 1))),
]


@pytest.mark.attack("P06", "P16")
@pytest.mark.parametrize("make", [row[1] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_an_mta_would_not_take_is_not_made(make: Callable[[], bytes]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        make()


def test_the_longest_reply_line_has_512_octets() -> None:
    """RFC 5321 §4.5.3.1.5: code and CRLF included."""
    line = reply_code(b"550", b"5.7.1", b"x" * 500)[5:-1]
    assert len(line + b"\r\n") == 512


@settings(deadline=None)
@given(name=st.binary(max_size=4), value=st.binary(max_size=12) | st.text("a \t\n\r\0").map(str.encode))
@pytest.mark.attack("P06")
def test_a_field_stays_one_field(name: bytes, value: bytes) -> None:
    """Read as Postfix reads it: a name, a value, and of the value lines that are folds."""
    try:
        made = insert_header(3, name, value)
    except ValueError:
        return
    length, command, index = struct.unpack_from("!IcI", made)
    read_name, read_value, rest = made[9:].split(b"\0")
    assert (length, command, index) == (len(made) - 4, b"i", 3)
    assert (read_name, read_value, rest) == (name, value, b"")
    assert all(line[:1] in (b" ", b"\t") for line in value.split(b"\n")[1:])
    assert b":" not in name
    assert len((name + b":" + value).splitlines()) == 1 + value.count(b"\n")


@settings(deadline=None)
@given(text=st.binary(max_size=40) | st.text(" %\r\na").map(str.encode))
@pytest.mark.attack("P16")
def test_a_reply_is_read_as_it_was_meant(text: bytes) -> None:
    """As Postfix reads it: %% is a %, and each line has the code."""
    try:
        made = reply_code(b"550", b"5.7.1", text)
    except ValueError:
        return
    lines = made[5:-1].replace(b"%%", b"%").split(b"\r\n")
    assert {line[:3] + line[4:10] for line in lines} == {b"5505.7.1 "}
    assert [line[3:4] for line in lines] == [b"-"] * (len(lines) - 1) + [b" "]
    assert b"\r\n".join(line[10:] for line in lines) == text
