"""The search for a few octets in a body: by the C library and without it, it finds what Python's `in` finds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailguard.dkim import octet_search
from mailguard.dkim.octet_search import occurs

SOUGHT = (b"  ", b" \r\n")
pieces = st.lists(st.sampled_from([b" ", b"\r", b"\n", b"\r\n", b"a", b"\0", b"\xff", b"x" * 61]), max_size=40)


@pytest.fixture(autouse=True, params=["strstr", "find"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "find":
        monkeypatch.setattr(octet_search, "_strstr", None)
    else:
        assert octet_search._strstr is not None, "this machine's C library is not called"


@pytest.mark.parametrize("text", SOUGHT)
@given(drawn=pieces.map(b"".join))
def test_it_agrees_with_python(text: bytes, drawn: bytes) -> None:
    assert occurs(text, drawn) is (text in drawn)


@pytest.mark.attack("D40")
@pytest.mark.parametrize("text", SOUGHT)
@pytest.mark.parametrize("before", [b"x", b"\0", b"\r"], ids=["plain", "NUL", "CR"])
def test_at_every_place(text: bytes, before: bytes) -> None:
    """The C library takes up to 64 octets in a step; and what stands before it, a NUL too, hides nothing."""
    for count in [*range(140), 65_533]:
        octets = (before * count)[:count]
        assert occurs(text, octets + text)
        assert occurs(text, octets + text + b"y" * 70)
        assert not occurs(text, octets + text[:-1])


@pytest.mark.parametrize("text", SOUGHT)
def test_it_ends_where_the_octets_end(text: bytes) -> None:
    """What lies behind them in memory is not looked at."""
    whole = b"x" * 100 + text
    for end in range(len(whole)):
        assert not occurs(text, whole[:end])
