"""Lines that Postfix breaks behind the milter (RFC 5322 §2.1.1)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailguard.message import HeaderField
from mailguard_milter.long_lines import BodyLines, has_long_line

LONGEST = b"x" * 998
TOO_LONG = b"x" * 999


def body_lines(body: bytes, size: int = 65_535) -> BodyLines:
    lines = BodyLines()
    for at in range(0, len(body), size):
        lines.update(body[at : at + size])
    return lines


@pytest.mark.parametrize("size", [1, 2, 997, 998, 999, 1_000, 1_001, 65_535])
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", False),
        (b"\r\n", False),
        (LONGEST + b"\r\n", False),
        (TOO_LONG + b"\r\n", True),
        (b"\r\n" + LONGEST + b"\r\n" + LONGEST + b"\r\n", False),
        (b"\r\n" + LONGEST + b"\r\n" + TOO_LONG + b"\r\n", True),
        (TOO_LONG + b"\r\n" + LONGEST + b"\r\nshort\r\n", True),
        (b"short\r\n" * 500, False),
        (b"short\r\n" * 500 + TOO_LONG + b"\r\n" + b"short\r\n" * 500, True),
        (b"x" * 200_000 + b"\r\n", True),
    ],
)
def test_body(body: bytes, expected: bool, size: int) -> None:
    assert body_lines(body, size).is_long is expected


@given(
    st.lists(st.sampled_from([0, 1, 60, 500, 996, 997, 998, 999, 1_000, 2_500]), max_size=8),
    st.integers(min_value=1, max_value=1_200),
)
def test_a_body_in_chunks_of_any_size(lengths: list[int], size: int) -> None:
    body = b"".join(b"x" * length + b"\r\n" for length in lengths)
    assert body_lines(body, size).is_long is any(length > 998 for length in lengths)


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (HeaderField(b"To", b" " + b"x" * 994), False),
        (HeaderField(b"To", b" " + b"x" * 995), True),
        (HeaderField(b"To", b" " + b"x" * 994 + b"\r\n " + b"x" * 997), False),
        (HeaderField(b"To", b" x\r\n " + b"x" * 998), True),
        (HeaderField(b"References", b"\r\n <x@us.test>" * 500), False),
    ],
)
def test_header_field(field: HeaderField, expected: bool) -> None:
    assert has_long_line([HeaderField(b"From", b" <a@us.test>"), field]) is expected
