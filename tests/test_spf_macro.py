"""Macros (RFC 7208 §7): what they stand for, what breaks them, and which names come out of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpu_time import best_cpu_s
from mailguard.dns.names import why_unaskable
from mailguard.spf.macro import DomainSpec, Macro, MacroError, expanded, parse_macros
from mailguard.spf.names import host_name, target_name
from mailguard.spf.result import SpfReason, SpfStatus
from spf_asking import EVIL_IP, Zone, record, recorded

V6 = "2001:db8::cb01"
NIBBLES = "2.0.0.1.0.D.B.8.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.C.B.0.1"

VALUES = {
    "s": "strong-bad@email.example.com",
    "l": "strong-bad",
    "o": "email.example.com",
    "d": "email.example.com",
    "i": "192.0.2.3",
    "p": "mx.example.org",
    "v": "in-addr",
    "h": "mx.example.org",
    "c": "192.0.2.3",
    "r": "mx.us.test",
    "t": "1750000000",
}


def expand(text: str, **values: str) -> str:
    return expanded(parse_macros(text), {**VALUES, **values}.__getitem__)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # RFC 7208 §7.4
        ("%{s}", "strong-bad@email.example.com"),
        ("%{o}", "email.example.com"),
        ("%{d}", "email.example.com"),
        ("%{d4}", "email.example.com"),
        ("%{d3}", "email.example.com"),
        ("%{d2}", "example.com"),
        ("%{d1}", "com"),
        ("%{dr}", "com.example.email"),
        ("%{d2r}", "example.email"),
        ("%{l}", "strong-bad"),
        ("%{l-}", "strong.bad"),
        ("%{lr}", "strong-bad"),
        ("%{lr-}", "bad.strong"),
        ("%{l1r-}", "strong"),
        ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
        ("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"),
        ("%{lr-}.lp.%{ir}.%{v}._spf.%{d2}", "bad.strong.lp.3.2.0.192.in-addr._spf.example.com"),
        ("%{ir}.%{v}.%{l1r-}.lp._spf.%{d2}", "3.2.0.192.in-addr.strong.lp._spf.example.com"),
        ("%{d2}.trusted-domains.example.net", "example.com.trusted-domains.example.net"),
        # RFC 7208 §7.3
        ("%{S}", "strong-bad%40email.example.com"),
        ("%{D2R}", "example.email"),
        ("%{dR}", "com.example.email"),
        ("%{d127}", "email.example.com"),
        ("%{d00002}", "example.com"),
        ("%{d9999999999999999999999}", "email.example.com"),
        ("%{l99999999999999-}", "strong.bad"),
        ("%{lr-.+,/_=}", "bad.strong"),
        ("a%%b%_c%-d", "a%b c%20d"),
        ("%%{d}", "%{d}"),
        ("", ""),
        ("plain }{ text", "plain }{ text"),
    ],
)
def test_expansion(text: str, expected: str) -> None:
    assert expand(text) == expected


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("%{l}", "..a..", "..a.."),
        ("%{lr}", "..a.", ".a.."),
        ("%{l2}", "a..", "."),
        ("%{l.}", "a.b", "a.b"),
        ("%{l-+}", "a-b+c-d", "a.b.c.d"),
        ("%{l2-+}", "a-b+c-d", "c.d"),
        ("%{d-}", "a-b.c-d", "a.b.c.d"),
        ("%{dr-}", "a-b.c-d", "d.b.c.a"),
        ("%{l}", "", ""),
        ("%{lr2}", "", None),
        ("%{L}", "a b@c/d~e_f-g.h", "a%20b%40c%2Fd~e_f-g.h"),
        ("%{L}", "ö%", "%C3%B6%25"),
        ("%{L1}", "a.b c", "b%20c"),
        ("%{L+}", "a+b", "a.b"),
    ],
)
@pytest.mark.attack("S14")
def test_transformers(text: str, value: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(MacroError):
            expand(text)
        return
    assert expand(text, l=value, d=value) == expected


BAD = ["%", "%x", "%(d)", "%{", "%{d", "%{}", "%{z}", "%{d0}", "%{d000}", "%{dz}", "%{d2rr}", "%{dr2}", "%{d-2}"]
BAD += ["%{d@}", "%{d }", "%{%d}", "%{d%}", "%{d}%", "%%%", "%%%a", "% ", "%{ſ}", "%{d２}", "a%", "%{d1r.}%{"]


@pytest.mark.attack("S13")
@pytest.mark.parametrize("text", BAD)
def test_what_is_no_macro(text: str) -> None:
    with pytest.raises(MacroError):
        parse_macros(text)
    with pytest.raises(MacroError):
        DomainSpec.parse(text + ".test")
    if text.isascii() and " " not in text:
        for term in (f"exists:{text}.test", f"redirect={text}.test", f"exp={text}.test", f"unknown={text}"):
            result = record(f"v=spf1 +all {term}")
            assert (result.status, result.reason) == (SpfStatus.PERMERROR, SpfReason.RECORD_SYNTAX), term


@pytest.mark.attack("S13")
@pytest.mark.parametrize("letter", list("crtCRT"))
def test_what_only_explanations_may_have(letter: str) -> None:
    for term in (f"exists:%{{{letter}}}.test", f"a:x.%{{{letter}}}", f"redirect=%{{{letter}}}", f"exp=%{{{letter}}}"):
        assert record(f"v=spf1 +all {term}").reason is SpfReason.RECORD_SYNTAX
    assert parse_macros(f"%{{{letter}}}") == (Macro(letter.lower(), is_escaped=letter.isupper()),)


@pytest.mark.attack("S13")
def test_digits_are_bounded() -> None:
    def work() -> None:
        for digits in ("9" * 5_000, "0" * 5_000 + "1"):
            result = record(f"v=spf1 exists:%{{d{digits}}}.check.test -all")
            assert result.status is SpfStatus.FAIL
        assert record(f"v=spf1 ip4:1.2.3.4/{'9' * 5_000} -all").reason is SpfReason.RECORD_SYNTAX
        assert record(f"v=spf1 a:a.test//{'1' * 5_000} -all").reason is SpfReason.RECORD_SYNTAX

    assert best_cpu_s(work) < 1


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("a.test", ""),
        ("a.test.", ""),
        ("a.t-e-s-t", ""),
        ("a.1-2", ""),
        ("a.1t", ""),
        ("%{d}", "d"),
        ("%%", ""),
        ("%_", ""),
        ("a.%{D2R}", "d"),
        ("%{s}.%{l}.%{p}.test", "slp"),
        ("foo:bar/baz.test", ""),
        ("..a..test", ""),
    ],
)
def test_domain_specs(text: str, letters: str) -> None:
    spec = DomainSpec.parse(text)
    assert (spec.text, spec.letters) == (text, frozenset(letters))
    assert spec.is_literal is ("%" not in text)


NO_NAMES = [
    "",
    ".",
    "a",
    "test",
    "test.",
    "a.",
    "a.b..",
    "a.123",
    "%{d}a",
    "%{d}.",
    "%{d}.1",
    "}",
    "x.%{d}}",
    "a.b_c",
]


@pytest.mark.parametrize("text", NO_NAMES)
def test_what_is_no_domain_spec(text: str) -> None:
    with pytest.raises(MacroError):
        DomainSpec.parse(text)


@pytest.mark.attack("S15")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A.Test", "a.test"),
        ("a.test.", "a.test"),
        ("a.test..", ""),
        ("", ""),
        (".", ""),
        ("a..test", ""),
        (".a.test", ""),
        ("a" * 63 + ".test", "a" * 63 + ".test"),
        ("a" * 64 + ".test", ""),
        ("a" * 64, ""),
        ("bounce+user=a.test", "bounce+user=a.test"),
        ("a b.test", "a b.test"),
        ('"a@b".test', '"a@b".test'),
        ("a\\b.test", ""),
        ("a\0.test", ""),
        ("a\n.test", ""),
        ("a\x7f.test", ""),
        ("ö.test", ""),
        ("\u212a.test", ""),
        ("@", ""),
        ("@.", ""),
        ("x." + ".".join(["abcdefgh"] * 28), "x." + ".".join(["abcdefgh"] * 28)),
        (".".join(["abcdefgh"] * 28) + ".", ".".join(["abcdefgh"] * 28)),
        ("ab." + ".".join(["abcdefgh"] * 28), ".".join(["abcdefgh"] * 28)),
        ("a." * 200 + "test", ("a." * 200 + "test")[-252:]),
        ("a" * 300, ""),
        ("a" * 300 + ".test", "test"),
        ("x" * 300 + "." + "a" * 60 + ".test", "a" * 60 + ".test"),
    ],
)
def test_the_name_that_is_looked_up(text: str, expected: str) -> None:
    assert target_name(text) == expected
    assert len(target_name(text)) <= 253


@given(st.text(max_size=80), st.integers(0, 40))
def test_no_name_is_unaskable(text: str, labels: int) -> None:
    name = target_name(text + ".abcdefg" * labels)
    assert not name or not why_unaskable(name)
    assert target_name(name) == name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mail.test", "mail.test"),
        ("a\\058b.test", "a:b.test"),
        ("a\\032b.test", "a b.test"),
        ("a\\046b.test", ""),
        ("a\\092b.test", ""),
        ("a\\000b.test", ""),
        ("a\\255b.test", ""),
        ("a\\010b.test", ""),
        ("", ""),
    ],
)
def test_names_from_answers(text: str, expected: str) -> None:
    assert host_name(text) == expected


@pytest.mark.attack("S15")
@pytest.mark.parametrize(
    ("term", "mail_from"),
    [
        ("exists:%{l}.evil.test", "a" * 64 + "@evil.test"),
        ("a:%{l}.evil.test", "a..b@evil.test"),
        ("mx:%{h}", "x@evil.test"),
        ("exists:%{l}.evil.test", "a\\b@evil.test"),
        ("exists:%{l}%{l}%{l}.%{l}%{l}.evil.test", "a" * 63 + "@evil.test"),
        ("ptr:%{h}", "x@evil.test"),
    ],
)
def test_a_name_that_cannot_be_looked_up_matches_nothing(term: str, mail_from: str) -> None:
    """RFC 7208 §4.8 leaves it open: no match, no exception, no query, no void."""
    for helo in ("", ".", "ö..test", "a" * 400):
        asked = recorded(f"v=spf1 {term} ?all", mail_from=mail_from, helo=helo)
        assert (asked.result.status, asked.result.mechanism) == (SpfStatus.NEUTRAL, "?all")
        assert [one for one in asked.questions if "arpa" not in one] == ["evil.test TXT"]
        assert asked.result.lookups == 1


@pytest.mark.attack("S15")
def test_a_long_name_is_cut_from_the_left() -> None:
    tail = ".".join(["abcdefgh"] * 27) + ".test"
    more: Zone = {f"c.d.e.{tail}": {"A": ["127.0.0.2"]}}
    for local_part, expected in (("a.b.c.d.e", "c.d.e."), ("abcdefgh.d.e", "d.e."), ("c.d.e", "c.d.e.")):
        asked = recorded(f"v=spf1 exists:%{{l}}.{tail} -all", mail_from=f"{local_part}@evil.test", more=more)
        assert asked.consumed[1:] == [f"{expected}{tail} A"]
        assert asked.result.status is (SpfStatus.PASS if expected == "c.d.e." else SpfStatus.FAIL)


@pytest.mark.attack("S19")
def test_d_is_the_domain_of_the_record_and_o_that_of_the_sender() -> None:
    more: Zone = {
        "a.test": {"TXT": ["v=spf1 -exists:%{d}.%{o}.check.test redirect=b.test"]},
        "b.test": {"TXT": ["v=spf1 include:c.test exists:%{d}.%{o}.check.test -all"]},
        "c.test": {"TXT": ["v=spf1 -exists:%{d}.%{o}.check.test ?all"]},
        "b.test.evil.test.check.test": {"A": ["127.0.0.2"]},
    }
    asked = recorded("v=spf1 include:a.test exists:%{d}.%{o}.check.test -all", more=more)
    assert asked.result.status is SpfStatus.PASS
    assert [one for one in asked.consumed if "check" in one] == [
        "a.test.evil.test.check.test A",
        "c.test.evil.test.check.test A",
        "b.test.evil.test.check.test A",
    ]
    restored = recorded("v=spf1 include:c.test exists:%{d}.%{o}.check.test -all", more=more)
    assert restored.consumed[-1] == "evil.test.evil.test.check.test A"


@pytest.mark.parametrize(
    ("ip", "text", "name"),
    [
        (V6, "%{i}", NIBBLES.lower()),
        (V6, "%{ir}.%{v}", ".".join(reversed(NIBBLES.lower().split("."))) + ".ip6"),
        (V6, "%{i4}.x.test", "c.b.0.1.x.test"),
        ("::ffff:192.0.2.3", "%{ir}.%{v}", "3.2.0.192.in-addr"),
        (EVIL_IP, "%{h}.%{l}.test", "helo.example.x.test"),
        (EVIL_IP, "%{s}.test", "x@evil.test.test"),
        (EVIL_IP, "%{L}%{D}.test", "xevil.test.test"),
        (EVIL_IP, "a%_b%%c%-.%{d}", "a b%c%20.evil.test"),
    ],
)
def test_macros_in_terms(ip: str, text: str, name: str) -> None:
    asked = recorded(f"v=spf1 exists:{text} ?all", ip, helo="helo.example")
    assert asked.consumed[1:] == [f"{name} A"]


def test_a_name_made_by_macros_is_not_expanded_again() -> None:
    """pyspf does, where the domain of an included record has a percent sign."""
    more: Zone = {"%{p}.evil.test": {"TXT": ["v=spf1 a exists:%{d1}.%{d}.check.test -all"]}}
    asked = recorded("v=spf1 include:%{l}.evil.test ?all", mail_from="%{p}@evil.test", more=more)
    assert asked.result.mechanism == "?all"
    assert asked.consumed[1:] == ["%{p}.evil.test TXT", "%{p}.evil.test A", "test.%{p}.evil.test.check.test A"]


@pytest.mark.parametrize(
    ("mail_from", "local_part"),
    [
        ("", "postmaster"),
        ("@evil.test", "postmaster"),
        ('"a b"@evil.test', '"a b"'),
        ("@a.test:x@evil.test", "x"),
        ("x@y@evil.test", "x@y"),
        ('"x@y"@evil.test', '"x@y"'),
    ],
)
def test_the_sender_in_macros(mail_from: str, local_part: str) -> None:
    for macros, expected in (
        ("%{s}", f"{local_part}@evil.test"),
        ("%{l}", local_part),
        ("%{o}", "evil.test"),
        ("%{l}.of.%{o}", f"{local_part}.of.evil.test"),
    ):
        asked = recorded(f"v=spf1 exists:{macros}.test ?all", mail_from=mail_from)
        assert asked.consumed[1:] == [f"{expected}.test A"]


@pytest.mark.attack("S14")
@pytest.mark.parametrize("letter", ["l", "s", "L", "S", "l1r-", "S2"])
def test_terms_with_a_local_part_beyond_ascii_match_nothing(letter: str) -> None:
    """RFC 8616 §4, for every kind of term; the other terms are evaluated."""
    macro = f"%{{{letter}}}"
    text = "v=spf1 " + " ".join(f"{name}:{macro}.a.test" for name in ("exists", "include", "a", "mx", "ptr"))
    asked = recorded(f"{text} exists:%{{o}}.b.test -all exp={macro}.a.test", mail_from="ö@evil.test")
    assert (asked.result.status, asked.result.explanation) == (SpfStatus.FAIL, None)
    assert asked.consumed == ["evil.test TXT", "evil.test.b.test A"]
    assert asked.result.lookups == 1
    redirect = recorded(f"v=spf1 redirect={macro}.a.test", mail_from="ö@evil.test")
    assert (redirect.result.status, redirect.result.reason) == (SpfStatus.NEUTRAL, SpfReason.NO_MATCH)


@given(st.text(alphabet="%{}slodiphcrtvSLODIPHCRTV0129r.-+,/_=a@ ", max_size=60))
def test_reading_is_total_and_what_is_read_expands(text: str) -> None:
    try:
        parts = parse_macros(text)
    except MacroError:
        return
    assert "%" not in text or len(parts) > 0
    assert isinstance(expanded(parts, VALUES.__getitem__), str)


@given(
    st.lists(st.sampled_from(["a", ".", "bcdefgh.", "%{s}", "%{l}", "%{d1}", "%{Lr-}", "%%"]), max_size=60),
    st.text(alphabet="ab.-", max_size=90),
)
def test_the_part_of_a_name_that_matters_is_enough(pieces: list[str], local_part: str) -> None:
    spec = DomainSpec.parse("".join(pieces) + ".test")
    value = {**VALUES, "l": local_part, "s": f"{local_part}@evil.test"}.__getitem__
    whole = expanded(spec.parts, value)
    assert whole.endswith(spec.expanded(value))
    assert target_name(spec.expanded(value)) == target_name(whole)


def test_of_a_long_name_only_the_end_is_made() -> None:
    asked: list[str] = []

    def value(letter: str) -> str:
        asked.append(letter)
        return "strong-bad"

    spec = DomainSpec.parse("%{s}" * 1_000 + ".test")
    assert target_name(spec.expanded(value)) == "test"
    assert len(asked) <= 30


def test_a_name_of_just_the_right_length_is_not_cut() -> None:
    rest = ".".join(["abcdefghi"] * 24 + ["abcdefghijk"])
    assert len(rest) == 251
    for dot in ("", "."):
        spec = DomainSpec.parse(f"%{{l}}.{rest}{dot}")
        assert target_name(spec.expanded(lambda _: "x")) == f"x.{rest}"
        assert target_name(spec.expanded(lambda _: "xx")) == rest
