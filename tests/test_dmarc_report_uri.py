"""Report URIs of strangers: what is one, whom it names, and that nothing of it can break out (RFC 9989 §4.8)."""

from __future__ import annotations

import re
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpu_time import best_cpu_s
from mailguard.dmarc.report_uri import MAX_LIST_ITEMS, MAX_REPORT_URIS, MAX_URI_CHARS, ReportUri


def parsed(item: bytes) -> tuple[str, str, str | None] | None:
    uri = ReportUri.parse(item)
    return None if uri is None else (uri.text, uri.host, uri.address)


@pytest.mark.attack("M09")
@pytest.mark.parametrize(
    ("item", "text", "host", "address"),
    [
        (b"mailto:a@b.test", "mailto:a@b.test", "b.test", "a@b.test"),
        (b" \tmailto:a@b.test ", "mailto:a@b.test", "b.test", "a@b.test"),
        (b"MAILTO:a@B.Test", "MAILTO:a@B.Test", "b.test", "a@b.test"),
        (b"mailto:a@b.test!10m", "mailto:a@b.test", "b.test", "a@b.test"),
        (b"mailto:a@b.test!10", "mailto:a@b.test", "b.test", "a@b.test"),
        (b"mailto:a@b.test!10T", "mailto:a@b.test", "b.test", "a@b.test"),
        (b"mailto:a+b_c=d@b.test", "mailto:a+b_c=d@b.test", "b.test", "a+b_c=d@b.test"),
        (b"mailto:a%2Bx@b.test", "mailto:a%2Bx@b.test", "b.test", "a+x@b.test"),
        (b"mailto:a%21x@b.test", "mailto:a%21x@b.test", "b.test", "a!x@b.test"),
        (b"mailto:a@b.test?subject=x&bcc=c@d.test", "mailto:a@b.test?subject=x&bcc=c@d.test", "b.test", "a@b.test"),
        (b"mailto:a@xn--bcher-kva.test", "mailto:a@xn--bcher-kva.test", "xn--bcher-kva.test", "a@xn--bcher-kva.test"),
        (b"https://r.test/p?q=1#f", "https://r.test/p?q=1#f", "r.test", None),
        (b"https://R.test:8443", "https://R.test:8443", "r.test", None),
        (b"https://r.test!1g", "https://r.test", "r.test", None),
    ],
)
def test_valid(item: bytes, text: str, host: str, address: str | None) -> None:
    assert parsed(item) == (text, host, address)


@pytest.mark.attack("M09")
@pytest.mark.parametrize(
    "item",
    [
        b"",
        b"a@b.test",
        b"mailto:",
        b"mailto:a",
        b"mailto:@b.test",
        b"mailto:a@",
        b"mailto:a@b..test",
        b"mailto:a@b.test.",
        b"mailto:a@[192.0.2.1]",
        b"mailto:a@b_c.test",
        b"mailto:a b@c.test",
        b"mailto:a..b@c.test",
        b'mailto:"a b"@c.test',
        b"mailto:%22a%20b%22@c.test",
        b"mailto:a@b.test\r\nBcc:c@d.test",
        b"mailto:a%0d%0aBcc:c%40d.test@b.test",
        b"mailto:a@b.test%0d%0aBcc:c@d.test",
        b"mailto:a%00@b.test",
        b"mailto:a@b.test%00",
        b"mailto:c@d.test%2Ca@b.test",
        b"mailto:c%40d.test%2Ca@b.test",
        b"mailto:a%ff@b.test",
        b"mailto:\xc3\xa4@b.test",
        b"mailto:a@b\xc3\xbc.test",
        b"mailto:a%zz@b.test",
        b"mailto:a%2@b.test",
        b"mailto:a!b@c.test",
        b"mailto:a@b.test!10x",
        b"mailto:a@b.test!m",
        b"mailto:<a@b.test>",
        b"mailto://a@b.test/",
        b"mailto:" + b"a" * 65 + b"@b.test",
        b"mailto:a@b.test?x=" + b"y" * MAX_URI_CHARS,
        b"https:",
        b"https://",
        b"https:///path",
        b"https://user@r.test/",
        b"https://r.test:x/",
        b"https://[::1]/",
        b"https://-r.test/",
        b"https:r.test",
        b"http://r.test/",
        b"ftp://r.test/",
        b"javascript:alert(1)",
    ],
)
def test_not_valid_or_not_supported(item: bytes) -> None:
    assert ReportUri.parse(item) is None


@pytest.mark.attack("M09")
def test_a_list_keeps_its_valid_items_once_and_not_too_many() -> None:
    listed = ReportUri.parse_list(b"mailto:a@b.test!10m , junk,,https://r.test/ ,mailto:a@b.test")
    assert [uri.text for uri in listed] == ["mailto:a@b.test", "https://r.test/"]
    many = b",".join(b"mailto:a%d@b.test" % number for number in range(1_000))
    kept = ReportUri.parse_list(many)
    assert [uri.address for uri in kept] == [f"a{number}@b.test" for number in range(MAX_REPORT_URIS)]
    commas = b"," * 60_000
    assert ReportUri.parse_list(commas) == ()
    junk = b"junk," * (MAX_LIST_ITEMS - 1) + b"mailto:a@b.test,mailto:b@b.test"
    assert len(ReportUri.parse_list(junk)) == 1
    assert sum(best_cpu_s(partial(ReportUri.parse_list, text)) for text in (many, commas, junk)) < 0.5


ADDRESS = re.compile(r"[!-~]+@[a-z0-9.-]+")
pieces = st.sampled_from(
    [b"mailto:", b"https://", b"a", b"@", b"b.test", b"%0d%0a", b"%2c", b"%40", b"!1m", b"?bcc=", b",", b"\r\n"]
)
uris = st.sampled_from([b"mailto:a@b.test", b"mailto:a.b%2bc@b.test?subject=x", b"https://b.test:443/x?y"])


@given(
    st.lists(pieces | st.binary(max_size=4), max_size=8).map(b"".join)
    | st.tuples(uris, st.integers(0, 30), pieces).map(lambda it: it[0][: it[1]] + it[2] + it[0][it[1] + 1 :])
)
def test_whatever_is_accepted_can_be_written_anywhere(item: bytes) -> None:
    uri = ReportUri.parse(item)
    if uri is None:
        return
    assert re.fullmatch(r"[!-~]+", uri.text)
    assert not set(uri.text) & set(',!<>"\\ ')
    if uri.address is not None:
        assert ADDRESS.fullmatch(uri.address)
        assert not set(uri.address) & set(',<>"\\ ()[];:')
