"""The address scanner (RFC 5322 §3.4): one reading, or a defect. What readers display decides what is judged."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailguard.address import (
    MAX_COMMENT_DEPTH,
    MAX_FIELD_BYTES,
    MAX_MAILBOXES,
    AddressDefect,
    AddressFlag,
    AddressSyntaxError,
    MailboxList,
    parse_mailboxes,
)

READ = [
    ("bare", b"x@evil.test", "x@evil.test", ""),
    ("angle", b"<x@evil.test>", "x@evil.test", ""),
    ("phrase", b"An Other <x@evil.test>", "x@evil.test", "An Other"),
    ("phrase with a dot", b"A. Other <x@evil.test>", "x@evil.test", "A. Other"),
    ("quoted string", b'"Other, A." <x@evil.test>', "x@evil.test", '"Other, A."'),
    ("quoted pair", b'"a \\"b\\\\" <x@evil.test>', "x@evil.test", '"a \\"b\\\\"'),
    ("8-bit phrase", "Jürgen <x@evil.test>".encode(), "x@evil.test", "Jürgen"),
    ("phrase that is not UTF-8", b'"\xff\xfe" <x@evil.test>', "x@evil.test", '"\udcff\udcfe"'),
    ("encoded word", b"=?utf-8?q?J=C3=BCrgen?= <x@evil.test>", "x@evil.test", "=?utf-8?q?J=C3=BCrgen?="),
    ("comment before", b"(ceo@bank.test) x@evil.test", "x@evil.test", ""),
    ("comment behind", b"x@evil.test (<ceo@bank.test>)", "x@evil.test", ""),
    ("comment in comment", b"x@evil.test (a (b) (c(d)) e)", "x@evil.test", ""),
    ("quoted pair in a comment", b"x@evil.test (\\) \\( )", "x@evil.test", ""),
    ("comments around the at sign", b"x(a)@(b)evil.test", "x@evil.test", ""),
    ("white space around the at sign", b"x @ evil.test", "x@evil.test", ""),
    ("folds", b"\r\n An\r\n\tOther\r\n <x@evil.test>\r\n ", "x@evil.test", "An Other"),
    ("quoted local part", b'"a@b"@bank.test', '"a@b"@bank.test', ""),
    ("empty quoted local part", b'""@bank.test', '""@bank.test', ""),
    ("dots misplaced in the local part", b"<.a..b.@evil.test>", ".a..b.@evil.test", ""),
    ("8-bit local part", "<ü@evil.test>".encode(), "ü@evil.test", ""),
    ("U-label", "x@bücher.test".encode(), "x@xn--bcher-kva.test", ""),
    ("upper case", b"x@BANK.Test", "x@bank.test", ""),
    ("percent hack", b"<a%bank.test@evil.test>", "a%bank.test@evil.test", ""),
    ("bang path", b"<bank.test!a@evil.test>", "bank.test!a@evil.test", ""),
    ("the same domain unquoted as display name", b"a@us.test <x@us.test>", "x@us.test", "a@us.test"),
    ("bracket in a display name", b"[External] Ann <x@evil.test>", "x@evil.test", "[External] Ann"),
    ("empty list members", b",, x@evil.test ,,", "x@evil.test", ""),
    ("equals signs and question marks that are no encoded word", b"<a=b?c==d@evil.test>", "a=b?c==d@evil.test", ""),
]

NO_ADDRESS, SYNTAX, GROUP = AddressDefect.NO_ADDRESS, AddressDefect.SYNTAX, AddressDefect.GROUP
ROUTE, ENCODED = AddressDefect.ROUTE, AddressDefect.ENCODED_WORD
EMPTY, DOMAIN, LITERAL, SIZE = AddressDefect.EMPTY, AddressDefect.DOMAIN, AddressDefect.LITERAL, AddressDefect.SIZE

DEFECTS = [
    ("nothing", b"", EMPTY),
    ("white space", b" \r\n\t ", EMPTY),
    ("comment alone", b"(ceo@bank.test)", EMPTY),
    ("commas", b",,", EMPTY),
    ("angle brackets around nothing", b"<>", SYNTAX),
    ("angle brackets around a word", b"<ceo>", SYNTAX),
    ("angle brackets around words", b"<x evil bank.test>", SYNTAX),
    ("angle brackets around a mark and a domain", b"<;@bank.test>", SYNTAX),
    ("word", b"ceo", NO_ADDRESS),
    ("phrase", b'"ceo@bank.test"', NO_ADDRESS),
    ("encoded word", b"=?utf-8?q?ceo=40bank.test?=", NO_ADDRESS),
    ("member without address", b"<x@evil.test>, bogus", NO_ADDRESS),
    ("word before a bare address", b"ceo x@evil.test", NO_ADDRESS),
    ("word behind a bare address", b"x@evil.test ceo", NO_ADDRESS),
    ("two bare addresses", b"x@evil.test ceo@bank.test", NO_ADDRESS),
    ("two at signs", b"a@b@bank.test", SYNTAX),
    ("two at signs in angle brackets", b"<a@b@bank.test>", SYNTAX),
    ("no local part", b"@bank.test", SYNTAX),
    ("no local part in angle brackets", b"<@bank.test>", ROUTE),
    ("no domain", b"<ceo@>", SYNTAX),
    ("no domain, bare", b"ceo@", SYNTAX),
    ("domain in quotes", b'<ceo@"bank.test">', SYNTAX),
    ("quotes beside a word in the local part", b'a"b"@bank.test', NO_ADDRESS),
    ("space in the domain", b"<x@evil. bank.test>", DOMAIN),
    ("comment in the domain", b"<x@evil(.bank).test>", SYNTAX),
    ("angle address and text", b"<x@evil.test> ceo", SYNTAX),
    ("angle address and address", b"<x@evil.test>ceo@bank.test", SYNTAX),
    ("two angle addresses", b"<x@evil.test> <ceo@bank.test>", SYNTAX),
    ("angle address in an angle address", b"<<ceo@bank.test>>", SYNTAX),
    ("unclosed angle", b"<ceo@bank.test", SYNTAX),
    ("unopened angle", b"ceo@bank.test>", SYNTAX),
    ("another domain unquoted as display name", b"ceo@bank.test <x@evil.test>", SYNTAX),
    ("unclosed quotes", b'"ceo <ceo@bank.test>', SYNTAX),
    ("unclosed quotes behind a backslash", b'"ceo\\" <ceo@bank.test>', SYNTAX),
    ("unclosed comment", b"ceo@bank.test(<x@evil.test>", SYNTAX),
    ("closing parenthesis", b"ceo@bank.test)", SYNTAX),
    ("backslash", b"<ceo@bank.test>\\,<x@evil.test>", SYNTAX),
    ("NUL", b"<x@evil.test>\0<ceo@bank.test>", SYNTAX),
    ("NUL in quotes", b'"a\0b" <x@evil.test>', SYNTAX),
    ("NUL in a comment", b"(a\0b) <x@evil.test>", SYNTAX),
    ("bare CR", b"<x@evil.test>\r,<ceo@bank.test>", SYNTAX),
    ("bare CR in quotes", b'"a\rb" <x@evil.test>', SYNTAX),
    ("bare LF", b"<x@evil.test>\n,<ceo@bank.test>", SYNTAX),
    ("CRLF that is no fold", b" <x@evil.\r\nbank.test>", SYNTAX),
    ("address literal", b"<x@[192.0.2.1]>", LITERAL),
    ("IPv6 address literal", b"x@[IPv6:::1]", LITERAL),
    ("angle address in brackets", b"[<ceo@bank.test>] <x@evil.test>", SYNTAX),
    ("list in brackets", b"[a, ceo@bank.test] <x@evil.test>", SYNTAX),
    ("address in brackets", b"[ceo@bank.test] <x@evil.test>", SYNTAX),
    ("parenthesis in brackets", b"[(] ceo@bank.test [)] <x@evil.test>", SYNTAX),
    ("quotes in brackets", b'["] <ceo@bank.test> ["] <x@evil.test>', SYNTAX),
    ("quotes in brackets, closed in a comment", b'["] <x@evil.test> ("] <ceo@bank.test>)', SYNTAX),
    ("parenthesis in brackets, closed in quotes", b'[(] ") <ceo@bank.test> " <x@evil.test>', SYNTAX),
    ("unclosed bracket", b"[ <x@evil.test>", SYNTAX),
    ("encoded word as local part", b"=?utf-8?q?ceo=40bank.test?=@evil.test", ENCODED),
    (
        "encoded words as local part, with NUL",
        b"=?utf-8?b?Y2VvQGJhbmsudGVzdA==?==?utf-8?Q?=00?=@evil.test",
        ENCODED,
    ),
    ("encoded word as local part in angle brackets", b"<=?utf-8?Q?ceo=40bank.test=3E?=@evil.test>", ENCODED),
    ("encoded word as quoted local part", b'<"=?utf-8?q?ceo=40bank.test?="@evil.test>', ENCODED),
    ("group", b"g: ceo@bank.test;", GROUP),
    ("empty group", b"undisclosed:;", GROUP),
    ("semicolon as separator", b"x@evil.test; ceo@bank.test", GROUP),
    ("colon behind an angle address", b"<x@evil.test>: ceo@bank.test", SYNTAX),
    ("source route", b"<@evil.test,@any.test:ceo@bank.test>", ROUTE),
    ("source route through the bank", b"<@bank.test:x@evil.test>", ROUTE),
    ("comment in angle brackets", b"<x@evil.test(>,<ceo@bank.test)>", SYNTAX),
    ("comment in angle brackets, harmless", b"<x(a)@evil.test>", SYNTAX),
    ("domain of an underscore", b"x@a_b.test", DOMAIN),
    ("trailing dot", b"x@bank.test.", DOMAIN),
    ("full-width angle bracket", "ceo@bank.test＞ <x@evil.test>".encode(), DOMAIN),
    ("no-break space behind the domain", "ceo@bank.test\u00a0<x@evil.test>".encode(), DOMAIN),
    ("domain that is not UTF-8", b"x@b\xffnk.test", DOMAIN),
    ("comments too deep", b"x@evil.test " + b"(" * 51 + b")" * 51, AddressDefect.NESTING),
    ("too many mailboxes", b",".join([b"a@us.test"] * (MAX_MAILBOXES + 1)), SIZE),
    ("too long", b"x@evil.test (" + b"a" * MAX_FIELD_BYTES + b")", SIZE),
]

DISPLAY, DECEPTIVE = AddressFlag.DISPLAY_NAME_ADDRESS, AddressFlag.DECEPTIVE_CHARACTERS

FLAGS = [
    ("nothing odd", b'"Ann" <x@evil.test>', set()),
    ("address in quotes", b'"ceo@bank.test" <x@evil.test>', {DISPLAY}),
    ("address unquoted", b"x@evil.test <x@evil.test>", {DISPLAY}),
    ("right-to-left override", "\u202etset.knab <x@evil.test>".encode(), {DECEPTIVE}),
    ("zero-width space", "ba\u200bnk <x@evil.test>".encode(), {DECEPTIVE}),
    ("zero-width space in the domain", "<ceo@ba\u200bnk.test>".encode(), {DECEPTIVE}),
    ("both", '"ceo@ba\u200dnk.test" <x@evil.test>'.encode(), {DISPLAY, DECEPTIVE}),
]


@pytest.mark.attack("F19", "F25", "F27", "F36")
@pytest.mark.parametrize(("value", "address", "name"), [row[1:] for row in READ], ids=[row[0] for row in READ])
def test_one_mailbox(value: bytes, address: str, name: str) -> None:
    (mailbox,) = parse_mailboxes(value).mailboxes
    assert (str(mailbox), mailbox.display_name) == (address, name)


@pytest.mark.attack("F18", "F19", "F21", "F22", "F23", "F26", "F29", "F32", "F37", "F38")
@pytest.mark.parametrize(("value", "defect"), [row[1:] for row in DEFECTS], ids=[row[0] for row in DEFECTS])
def test_no_reading(value: bytes, defect: AddressDefect) -> None:
    with pytest.raises(AddressSyntaxError) as caught:
        parse_mailboxes(value)
    assert caught.value.defect is defect


@pytest.mark.attack("F24", "F40")
@pytest.mark.parametrize(("value", "flags"), [row[1:] for row in FLAGS], ids=[row[0] for row in FLAGS])
def test_flags(value: bytes, flags: set[AddressFlag]) -> None:
    assert parse_mailboxes(value).flags == flags


def test_list_keeps_order_and_both_domains() -> None:
    found = parse_mailboxes(b'A <a@us.test>, "B, b" <b@bank.test> (c), c@us.test')
    assert list(map(str, found.mailboxes)) == ["a@us.test", "b@bank.test", "c@us.test"]


def test_bounds_are_reached() -> None:
    deep = b"(" * MAX_COMMENT_DEPTH + b")" * MAX_COMMENT_DEPTH
    assert len(parse_mailboxes(b"x@evil.test " + deep).mailboxes) == 1
    assert len(parse_mailboxes(b",".join([b"a@us.test"] * MAX_MAILBOXES)).mailboxes) == MAX_MAILBOXES
    assert len(parse_mailboxes(b"x@evil.test ".ljust(MAX_FIELD_BYTES)).mailboxes) == 1


PIECES = st.sampled_from(
    [b"x", b"@", b"evil.test", b"bank.test", b"<", b">", b"(", b")", b'"', b"\\", b",", b";", b":", b"[", b"]", b" ",
     b"\r\n ", b"\r", b"\0", b"\xff", b"\xc3\xbc", b".", b"=?utf-8?q?a?="]
)  # fmt: skip


USUAL_PIECES = st.sampled_from(
    [*'@<>." \t\\,([', " <", "a", "é", "evil.test", "us.test>", "=?", '"q q"', "\x01", "\u200b"]
)


# Most of what has one piece in place of an octet still names somebody, in another way or somebody else.
NAMED = st.sampled_from([b"a@b.test", b'"A, b" <a@b.test> (c), x@evil.test', b'"q q"@b.test,\r\n "n"<x@evil.test>'])


@example(b"(" * 100_000)
@example(b'"\\' * 10_000)
@given(
    st.binary()
    | st.lists(PIECES, max_size=30).map(b"".join)
    | st.tuples(NAMED, st.integers(0, 40), PIECES).map(lambda it: it[0][: it[1]] + it[2] + it[0][it[1] + 1 :])
)
def test_octets_become_mailboxes_or_address_syntax_error(value: bytes) -> None:
    try:
        found = parse_mailboxes(value)
    except AddressSyntaxError:
        return
    for mailbox in found.mailboxes:
        # Nothing is judged that does not stand in the field as an address of its own.
        assert mailbox.local_part
        again = parse_mailboxes(f"<{mailbox}>".encode("utf-8", "surrogateescape"))
        assert [str(one) for one in again.mailboxes] == [str(mailbox)]


def read(value: bytes) -> MailboxList | None:
    try:
        return parse_mailboxes(value)
    except AddressSyntaxError:
        return None


@given(st.lists(USUAL_PIECES, max_size=9).map("".join))
@example('"ceo@bank.test" <x@evil.test>')
@example("a  b <x@evil.test>")
@example("=?utf-8?q?a?= <=?utf-8?q?a?=@evil.test>")
@example("Ann \u202e <x@evil.test>")
def test_the_usual_form_is_read_as_any_other(text: str) -> None:
    """A comment at the end leaves the mailboxes as they are, and the field to the scanner of the unusual forms."""
    assert read(text.encode()) == read(text.encode() + b" ()")


ATOM = st.text(alphabet="abcXYZ0129!#$%&'*+-/=^_`{|}~éж", min_size=1, max_size=8)
QUOTED = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0x2FF, exclude_characters='"\\\x7f'), max_size=10
).map(lambda text: f'"{text}"')
# What looks like the start of an encoded word is refused.
LOCAL = (st.lists(ATOM, min_size=1, max_size=3).map(".".join) | QUOTED).filter(lambda text: "=?" not in text)
DOMAIN_NAME = st.from_regex(r"[a-z][a-z0-9]{0,8}(\.[a-z][a-z0-9]{0,8}){0,3}", fullmatch=True)
COMMENT = st.text(alphabet='ab <>@,;:"[]é', max_size=8).map(lambda text: f"({text})")
BLANK = st.lists(st.sampled_from([" ", "\t", "\r\n "]) | COMMENT, max_size=3).map("".join)
NAME = st.text(alphabet="abc é@<>,;:()[]", max_size=10).map(lambda text: f'"{text}" ') | ATOM.map(lambda a: a + " ")


@given(st.lists(st.tuples(BLANK, NAME, LOCAL, DOMAIN_NAME, BLANK, st.booleans()), min_size=1, max_size=5))
def test_what_is_well_formed_is_read(members: list[tuple[str, str, str, str, str, bool]]) -> None:
    text = ",".join(
        before + (f"{name}<{local}@{domain}>" if angle else f"{local}@{domain}") + after
        for before, name, local, domain, after, angle in members
    )
    found = parse_mailboxes(text.encode())
    assert [(box.local_part, box.domain) for box in found.mailboxes] == [(row[2], row[3]) for row in members]
    assert [box.display_name for box in found.mailboxes] == [row[1][:-1] if row[5] else "" for row in members]
