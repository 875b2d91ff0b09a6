"""Actions are checked when they are made: nothing breaks out of a header field or of a reply."""

from __future__ import annotations

import sys
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailguard.message import Message
from mailguard_milter.actions import Action, DeleteHeader, InsertHeader, Reply

BAD_HEADERS = [
    (b"X-A", b" a\r\n b"),
    (b"X-A", b" a\rb"),
    (b"X-A", b" a\0b"),
    (b"X-A", b" a\nX-Evil: 1"),
    (b"X-A", b" a\n"),
    (b"X-A", b" a\n \n b"),
    (b"X-A", b" a\n\n b"),
    (b"X-A", b"\n"),
    (b"", b" a"),
    (b"X A", b" a"),
    (b"X:A", b" a"),
    (b"X\n", b" a"),
    (b"X\xff", b" a"),
    (b"X\0", b" a"),
]
GOOD_HEADERS = [(b"X-A", b" a"), (b"X-A", b""), (b"X-A", b" a\n b\n\tc"), (b"X-A", b" \xff"), (b"a!~", b" a:b;(c)")]


@pytest.mark.attack("P06")
@pytest.mark.parametrize(("name", "value"), BAD_HEADERS)
def test_a_header_field_that_would_break_out_cannot_be_made(name: bytes, value: bytes) -> None:
    with pytest.raises(ValueError, match="header field"):
        InsertHeader(name, value)


@pytest.mark.attack("P06")
@pytest.mark.parametrize(("name", "value"), GOOD_HEADERS)
def test_a_header_field_that_is_one_can_be_made(name: bytes, value: bytes) -> None:
    assert InsertHeader(name, value).value == value


@pytest.mark.attack("P06")
@given(
    st.sampled_from([b"X", b"Subject", b"x-y", b"\x7e"]) | st.binary(max_size=3),
    st.lists(
        st.sampled_from([b"a", b" ", b"\t", b"\n ", b"\n\t", b":", b"\xff", b"\n", b"\r", b"\0"]), max_size=8
    ).map(b"".join),
)
def test_what_can_be_inserted_is_one_field(name: bytes, value: bytes) -> None:
    try:
        action = InsertHeader(name, value)
    except ValueError:
        return
    raw = action.name + b":" + action.value.replace(b"\n", b"\r\n") + b"\r\nNext: 1\r\n\r\n"
    assert [field.name for field in Message.parse(raw).fields] == [name, b"Next"]


@pytest.mark.attack("P16")
@pytest.mark.parametrize(
    ("code", "enhanced", "text"),
    [
        ("550", "5.6.0", "a\r\nb"),
        ("550", "5.6.0", "a\nb"),
        ("550", "5.6.0", "a\0b"),
        ("550", "5.6.0", "a\x1bb"),
        ("550", "5.6.0", "grüß"),
        ("550", "5.6.0", "\udcff"),
        ("550", "5.6.0", "x" * 481),
        ("250", "2.0.0", "x"),
        ("350", "5.6.0", "x"),
        ("550", "4.6.0", "x"),
        ("451", "5.7.0", "x"),
    ],
)
def test_a_reply_that_is_none_cannot_be_made(code: str, enhanced: str, text: str) -> None:
    with pytest.raises(ValueError, match="a reply"):
        Reply(code, enhanced, text)


@pytest.mark.attack("P16")
def test_a_reply_may_hold_a_percent_sign_and_has_a_longest_text() -> None:
    assert Reply("451", "4.7.1", "100 % %s").text == "100 % %s"
    assert len(Reply("550", "5.6.0", "x" * 480).text) == 480


def test_actions_are_values() -> None:
    action: Action = DeleteHeader(b"A", 1)
    with pytest.raises(AttributeError):
        cast(Any, action).index = 2
    assert sys.getsizeof(action) < 100
