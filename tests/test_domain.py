"""Domain: one comparable form of a host name, or DomainError (RFC 1035 §2.3.4, RFC 5890, UTS 46)."""

from __future__ import annotations

from collections.abc import Callable

import idna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailguard.domain import Domain
from mailguard.errors import DomainError

LABEL_63 = "a" * 63
NAME_253 = ".".join([LABEL_63, LABEL_63, LABEL_63, "a" * 61])
U_LABEL_TOO_LONG = "ü" * 60  # its A-label would have more than 63 characters

GOOD = [
    ("plain", "bank.test", "bank.test"),
    ("upper case", "BANK.Test", "bank.test"),
    ("one label", "localhost", "localhost"),
    ("digits first", "3com.test", "3com.test"),
    ("hyphen inside", "a-b.test", "a-b.test"),
    ("hyphens in the third and fourth place", "ab--cd.test", "ab--cd.test"),
    ("longest label", LABEL_63 + ".test", LABEL_63 + ".test"),
    ("longest name", NAME_253, NAME_253),
    ("A-label", "xn--bcher-kva.test", "xn--bcher-kva.test"),
    ("A-label in upper case", "XN--BCHER-KVA.test", "xn--bcher-kva.test"),
    # Emoji that registries sell, and that people write mail from: no U-label, and in the DNS a name as any other.
    ("A-label of a letter and a symbol", "xn--i-7iq.test", "xn--i-7iq.test"),
    ("A-label of symbols in upper case", "XN--53HY7AF013I.test", "xn--53hy7af013i.test"),
    ("U-label", "bücher.test", "xn--bcher-kva.test"),
    ("U-label as UTF-8", "bücher.test".encode(), "xn--bcher-kva.test"),
    ("U-label in upper case", "BÜCHER.test", "xn--bcher-kva.test"),
    ("U-label, decomposed", "bu\u0308cher.test", "xn--bcher-kva.test"),
    ("sharp s is a letter of its own", "faß.test", "xn--fa-hia.test"),
    ("ideographic full stop", "bank\u3002test", "bank.test"),
    ("full-width full stop", "bank\uff0etest", "bank.test"),
    ("half-width ideographic full stop", "bank\uff61test", "bank.test"),
    ("full-width letters", "\uff42\uff41\uff4e\uff4b.test", "bank.test"),
    ("soft hyphen is nothing", "ba\u00adnk.test", "bank.test"),
    ("zero-width space is nothing", "ba\u200bnk.test", "bank.test"),
    ("Cyrillic a is another letter", "b\u0430nk.test", "xn--bnk-6cd.test"),
]

BAD = [
    ("empty", ""),
    ("root", "."),
    ("trailing dot", "bank.test."),
    ("leading dot", ".bank.test"),
    ("empty label", "bank..test"),
    ("label of 64", "a" * 64 + ".test"),
    ("name of 254", NAME_253 + "a"),
    ("underscore", "_dmarc.bank.test"),
    ("leading hyphen", "-bank.test"),
    ("trailing hyphen", "bank-.test"),
    ("space", "bank .test"),
    ("no-break space", "bank\u00a0.test"),
    ("NUL", "bank\0.test"),
    ("line feed at the end", "bank.test\n"),
    ("parenthesis", "bank.test(.evil.test"),
    ("apostrophe", "bank.test'a.evil.test"),
    ("quotes", '"bank.test"'),
    ("wildcard", "*.bank.test"),
    ("at sign", "x@bank.test"),
    ("address literal", "[192.0.2.1]"),
    ("full-width greater-than", "bank.test\uff1e"),
    ("A-label that does not decode", "xn--a.test"),
    ("A-label of nothing", "xn--.test"),
    ("A-label of ASCII", "xn--bank-.test"),
    ("A-label of a letter that UTS 46 maps (capital U with diaeresis)", "xn--cher-fna.test"),
    ("U-label that is too long", U_LABEL_TOO_LONG + ".test"),
    ("right-to-left override", "bank\u202etset.test"),
    ("left-to-right and right-to-left in one label", "a\u05d0.test"),
    ("emoji", "\U0001f4a9.test"),
    ("unassigned", "\u0378.test"),
    ("lone surrogate", "b\udcffnk.test"),
    ("not UTF-8", b"b\xffnk.test"),
    ("longer than anything", "a." * 5000 + "test"),
    ("longer than anything, bytes", b"a." * 5000 + b"test"),
]


@pytest.mark.attack("F30", "F33", "F34")
@pytest.mark.parametrize(("text", "expected"), [row[1:] for row in GOOD], ids=[row[0] for row in GOOD])
def test_one_form(text: str | bytes, expected: str) -> None:
    assert Domain.parse(text) == expected


@pytest.mark.attack("F31", "F35")
@pytest.mark.parametrize("text", [row[1] for row in BAD], ids=[row[0] for row in BAD])
def test_refused(text: str | bytes) -> None:
    with pytest.raises(DomainError):
        Domain.parse(text)


@pytest.mark.parametrize(
    ("name", "ancestor", "expected"),
    [
        ("bank.test", "bank.test", True),
        ("a.b.bank.test", "bank.test", True),
        ("notbank.test", "bank.test", False),
        ("bank.test", "a.bank.test", False),
        ("bank.test", "test", True),
        ("evil.test", "bank.test", False),
    ],
)
def test_equal_or_below(name: str, ancestor: str, expected: bool) -> None:
    assert Domain.parse(name).is_equal_or_below(Domain.parse(ancestor)) is expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bank.test", "bank.test"),
        ("xn--bcher-kva.test", "bücher.test"),
        ("mail.xn--bcher-kva.test", "mail.bücher.test"),
        ("xn--bcher-kva.ab--cd.test", "bücher.ab--cd.test"),
        ("xn--i-7iq.xn--bcher-kva.test", "xn--i-7iq.bücher.test"),
    ],
)
def test_unicode_form(name: str, expected: str) -> None:
    assert Domain.parse(name).unicode == expected


def test_u_label_beside_hyphens_is_the_same_name_in_both_forms() -> None:
    assert Domain.parse("bücher.ab--cd.test") == Domain.parse("xn--bcher-kva.ab--cd.test")


def test_a_u_label_is_converted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """To find out whether what came out is an A-label would take two conversions more, of 0.1 ms each."""
    done: list[str] = []

    def noted(convert: Callable[[str], object]) -> Callable[[str], object]:
        def converted(label: str) -> object:
            done.append(label)
            return convert(label)

        return converted

    for name in ("alabel", "ulabel"):
        monkeypatch.setattr(idna, name, noted(getattr(idna, name)))
    assert Domain.parse("bücher.shop.münchen.test") == "xn--bcher-kva.shop.xn--mnchen-3ya.test"
    assert done == ["bücher", "münchen"]


@given(st.text() | st.text(alphabet="abxn-.é。ß\u0430\u05d0\u200d\udc80", max_size=80))
def test_text_becomes_a_host_name_or_domain_error(text: str) -> None:
    try:
        domain = Domain.parse(text)
    except DomainError:
        return
    _assert_canonical(domain)


@given(st.binary() | st.text(alphabet="abxn-.éß\u0430", max_size=80).map(str.encode))
def test_octets_become_a_host_name_or_domain_error(octets: bytes) -> None:
    try:
        domain = Domain.parse(octets)
    except DomainError:
        return
    _assert_canonical(domain)


@given(st.from_regex(r"xn--[a-z0-9-]{1,20}", fullmatch=True))
def test_an_a_label_is_accepted_only_if_it_is_the_form_of_its_u_label_or_of_symbols(label: str) -> None:
    try:
        domain = Domain.parse(label)
    except DomainError:
        return
    assert Domain.parse(domain.unicode) == label
    if domain.unicode.isascii():
        assert domain.unicode == label
        text = label.removeprefix("xn--").encode().decode("punycode")
        with pytest.raises(DomainError):
            Domain.parse(text)
        assert f"xn--{text.encode('punycode').decode()}" == label


def _assert_canonical(domain: Domain) -> None:
    assert domain.isascii()
    assert domain == domain.lower()
    assert len(domain) <= 253
    assert all(1 <= len(label) <= 63 and label.replace("-", "").isalnum() for label in domain.split("."))
    assert Domain.parse(domain) == domain
    assert Domain.parse(domain.unicode) == domain
