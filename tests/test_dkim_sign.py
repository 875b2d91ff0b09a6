"""Signing: what a signature of ours covers, what it survives, and to whom our domain is never lent."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailguard.config import load
from mailguard.dkim.canonical import Canonicalization
from mailguard.dkim.result import DkimReason, DkimStatus
from mailguard.dkim.sign import MAX_KEPT_CHOICES, MAX_KEPT_FIELDS, MAX_KEPT_OCTETS, Choices, SigningRules
from mailguard.dkim.signing_key import SigningKey
from mailguard.dns.zone import ZoneResolver
from mailguard.errors import ConfigError, SigningRefused
from mailguard.message import HeaderField, Message
from mailguard.pipeline import sign_dkim
from mailguard.taglist import TagList
from zone0 import DAY_S, NOW, ed25519_key, mail, our_key, pem, result_of, results_of, zone

OVERSIGNED = [
    *("From", "Reply-To", "Subject", "To", "Cc", "Date", "Message-ID", "In-Reply-To", "References"),
    *("MIME-Version", "Content-Type", "Content-Transfer-Encoding"),
]
WHERE_PRESENT = [
    *("Sender", "List-Id", "List-Help", "List-Unsubscribe", "List-Unsubscribe-Post", "List-Subscribe", "List-Post"),
    *("List-Owner", "List-Archive", "List-Software"),
]
FULL = (
    b"".join(name.encode() + b": <a@us.test>\r\n" for name in OVERSIGNED)
    + b"".join(name.encode() + b": <b@us.test>\r\n" for name in WHERE_PRESENT)
    + b"X-Mailer: none\r\n\r\nHello.\r\n"
)


def fields_for(raw: bytes, *keys: SigningKey, rules: SigningRules | None = None) -> tuple[HeaderField, ...]:
    return sign_dkim(Message.parse(raw), keys=keys or (our_key(),), now=NOW + 0.9, rules=rules)


def signed(raw: bytes, *keys: SigningKey, rules: SigningRules | None = None) -> bytes:
    return b"".join(field.raw + b"\r\n" for field in fields_for(raw, *keys, rules=rules)) + raw


def tags_of(field: HeaderField) -> dict[str, bytes]:
    tags = TagList.parse(field.value)
    return {name: tags.compact(name) for name in tags}


@pytest.mark.attack("D08", "D09")
@pytest.mark.parametrize("name", OVERSIGNED)
@pytest.mark.parametrize("raw", [FULL, mail("<a@us.test>")], ids=["field present", "field mostly absent"])
def test_adding_a_field_that_is_oversigned_breaks_the_signature(name: str, raw: bytes) -> None:
    ours = signed(raw)
    assert result_of(ours).status is DkimStatus.PASS
    added = name.lower().encode() + b": x\r\n"
    for changed in (added + ours, ours.replace(b"\r\n\r\n", b"\r\n" + added + b"\r\n", 1)):
        result = result_of(changed)
        assert (result.status, result.reason) == (DkimStatus.FAIL, DkimReason.SIGNATURE)


@pytest.mark.attack("D08")
@pytest.mark.parametrize("name", [*OVERSIGNED, *WHERE_PRESENT])
def test_changing_or_removing_a_field_that_is_present_breaks_the_signature(name: str) -> None:
    ours = signed(FULL)
    line = re.search(rb"(?m)^%s: <.@us.test>\r\n" % name.encode(), ours)
    assert line is not None
    for other in (b"", line[0].replace(b"us.test", b"us.tesT")):
        changed = ours.replace(b"\r\n" + line[0], b"\r\n" + other)
        assert changed != ours
        assert result_of(changed).reason is DkimReason.SIGNATURE


@pytest.mark.attack("D08")
def test_every_name_is_listed_as_often_as_it_occurs_and_the_oversigned_once_more() -> None:
    (field,) = fields_for(b"To: <b@us.test>\r\nSender: <c@us.test>\r\n" + FULL)
    names = tags_of(field)["h"].decode().split(":")
    counts = {name: names.count(name) for name in names}
    assert counts == {
        **dict.fromkeys(OVERSIGNED, 2),
        **dict.fromkeys(WHERE_PRESENT, 1),
        "To": 3,
        "Sender": 2,
    }
    (field,) = fields_for(b"From: <a@us.test>\r\n\r\n")
    names = tags_of(field)["h"].decode().split(":")
    assert sorted(names) == sorted([*OVERSIGNED, "From"])


@pytest.mark.attack("D08")
def test_a_mailing_list_may_add_its_fields() -> None:
    added = b"".join(name.encode() + b": <list.other.test>\r\n" for name in WHERE_PRESENT)
    trace = b"Received: from us.test by other.test\r\nPrecedence: list\r\nDKIM-Signature: junk\r\n"
    results = results_of(trace + added + signed(mail("<alice@us.test>")))
    assert [result.status for result in results] == [DkimStatus.PERMERROR, DkimStatus.PASS]


@pytest.mark.attack("D12")
def test_there_is_no_way_to_ask_for_a_body_length(tmp_path: Path) -> None:
    for field in fields_for(FULL, our_key(), our_key("ed25519-sha256")):
        assert "l" not in tags_of(field)
    assert {name for name in SigningRules.__slots__ if "length" in name} == set()
    file = tmp_path / "mailguard.toml"
    file.write_text("[sign]\nbody_length = true\n")
    with pytest.raises(ConfigError, match="body_length"):
        load(file)


@pytest.mark.attack("D47")
@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"From: <a@us.test>\r\nFrom: <b@us.test>\r\n\r\n", "several-from"),
        (b"To: <a@us.test>\r\n\r\n", "no-from"),
        (b"Sender: <a@us.test>\r\n\r\n", "no-from"),
        (b"From: <a@us.test>, <b@bank.test>\r\n\r\n", "several-from-domains"),
        (b"From: <a@us.test>ceo@bank.test\r\n\r\n", "from-syntax"),
        (b"From:\r\n\r\n", "from-syntax"),
        (b"From: <a@us.test>\r\njunk\r\n\r\n", "header-syntax"),
        (b"From: <a@us.test>\r\nX: \0\r\n\r\n", "header-syntax"),
        (b"From: <a@us.test>\r\n" + b"X: y\r\n" * 1_000 + b"\r\n", "header-size"),
    ],
)
def test_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(SigningRefused) as refused:
        fields_for(raw)
    assert refused.value.reason == reason
    assert str(refused.value).startswith("not signed: ")


@pytest.mark.attack("D48")
@pytest.mark.parametrize(
    "author", ["<jürgen@bücher.test>", "<jürgen@xn--bcher-kva.test>", '"Jürgen" <j@BÜCHER.test>']
)
def test_internationalized_author(author: str) -> None:
    raw = mail(author)
    (domain,) = Message.parse(raw).author.domains
    key = SigningKey.from_bytes(pem(ed25519_key(3)), domain=domain, selector="s1")
    (field,) = fields_for(raw, key)
    assert tags_of(field)["d"] == b"xn--bcher-kva.test"
    assert field.value.isascii()
    resolver = ZoneResolver(zone({key.public_name: {"TXT": [key.record()]}}))
    assert result_of(signed(raw, key), resolver).status is DkimStatus.PASS


@pytest.mark.parametrize("header", Canonicalization)
@pytest.mark.parametrize("body", Canonicalization)
def test_both_algorithms_at_once_in_every_form(header: Canonicalization, body: Canonicalization) -> None:
    rules = SigningRules(header_canonicalization=header, body_canonicalization=body)
    raw = signed(FULL, our_key(), our_key("ed25519-sha256"), rules=rules)
    results = results_of(raw)
    assert [(result.status, result.algorithm, result.selector) for result in results] == [
        (DkimStatus.PASS, "rsa-sha256", "r1"),
        (DkimStatus.PASS, "ed25519-sha256", "e1"),
    ]
    assert {tags_of(field)["c"] for field in Message.parse(raw).named(b"dkim-signature")} == {
        f"{header.value}/{body.value}".encode()
    }


def test_it_expires_after_seven_days() -> None:
    (field,) = fields_for(FULL)
    tags = tags_of(field)
    assert (int(tags["t"]), int(tags["x"])) == (NOW, NOW + 7 * DAY_S)
    assert result_of(signed(FULL), now=NOW + 7 * DAY_S + 299).status is DkimStatus.PASS
    assert result_of(signed(FULL), now=NOW + 7 * DAY_S + 301).reason is DkimReason.EXPIRED


@pytest.mark.parametrize("lifetime_s", [0, -1, 86_400.0, "86400", None, True])
def test_a_lifetime_with_which_nothing_would_verify_is_refused(lifetime_s: Any) -> None:
    with pytest.raises(ValueError, match=r"^lifetime_s is a whole number of seconds"):
        SigningRules(lifetime_s=lifetime_s)


def test_the_shortest_lifetime() -> None:
    assert result_of(signed(FULL, rules=SigningRules(lifetime_s=1))).status is DkimStatus.PASS


@pytest.mark.parametrize("key", [our_key(), our_key("ed25519-sha256")], ids=["rsa", "ed25519"])
@pytest.mark.parametrize("raw", [FULL, mail("<a@us.test>"), b"References: <a@us.test>\r\n" * 200 + FULL])
def test_folded_at_78_with_a_blank_before_each_line(key: SigningKey, raw: bytes) -> None:
    (field,) = fields_for(raw, key)
    lines = field.raw.split(b"\r\n")
    assert max(map(len, lines)) <= 78
    assert min(map(len, lines[:-1])) > 10
    assert all(line[:1] == b"\t" and line.strip() for line in lines[1:])
    assert field.raw.startswith(b"DKIM-Signature: v=1;")
    assert b"\n" not in field.value.replace(b"\r\n\t", b"")


def test_only_what_a_name_makes_long_is_longer() -> None:
    domain = ".".join(["a" * 60] * 2) + ".test"
    key = SigningKey.from_bytes(pem(ed25519_key(4)), domain=domain, selector="s" * 60)
    (field,) = fields_for(mail("<a@us.test>"), key)
    long = [line for line in field.raw.split(b"\r\n") if len(line) > 78]
    assert [line.strip() for line in long] == [b"d=" + key.domain.encode() + b";"]


@pytest.mark.parametrize("count", [100, 900])
def test_what_we_sign_we_verify_however_many_fields_there_are(count: int) -> None:
    raw = b"To: <b@us.test>\r\n" * count + b"From: <a@us.test>\r\n\r\nHello.\r\n"
    assert result_of(signed(raw)).status is DkimStatus.PASS


LINES = st.lists(st.binary(max_size=30).map(lambda octets: octets.replace(b"\0", b"x")), max_size=6).map(b"\r\n".join)
TEXT = st.binary(max_size=30).map(lambda octets: re.sub(rb"[\0\r\n]", b" ", octets))
FORMS = st.builds(
    SigningRules,
    header_canonicalization=st.sampled_from(Canonicalization),
    body_canonicalization=st.sampled_from(Canonicalization),
)


@given(st.lists(st.tuples(st.sampled_from(["Subject", "To", "X-Y", "Sender"]), TEXT), max_size=6), LINES, FORMS)
def test_what_we_sign_we_verify(fields: list[tuple[str, bytes]], body: bytes, rules: SigningRules) -> None:
    header = b"From: <a@us.test>\r\n" + b"".join(name.encode() + b":" + value + b"\r\n" for name, value in fields)
    raw = header + b"\r\n" + body
    assert result_of(signed(raw, our_key("ed25519-sha256"), rules=rules)).status is DkimStatus.PASS


@pytest.mark.parametrize("name", [b"List-a;b", b"List-" + b"a" * 900], ids=["semicolon", "long"])
def test_a_list_field_that_does_not_fit_into_h_is_left_unsigned(name: bytes) -> None:
    (field,) = fields_for(b"From: a@us.test\r\n" + name + b": x\r\nList-Software: y\r\n\r\nHello.\r\n")
    names = TagList.parse(field.value).compact("h").split(b":")
    assert b"List-Software" in names
    assert name not in names
    assert max(map(len, field.raw.split(b"\r\n"))) <= 78


@pytest.mark.parametrize(("count", "signed_names"), [(50, 50), (51, 0), (900, 0)])
def test_list_fields_without_number_are_left_unsigned(count: int, signed_names: int) -> None:
    """With all of them the signature would be longer than a header field may be, and the mail would never be sent."""
    names = [b"List-%03d-" % number + b"a" * 60 for number in range(count)]
    raw = b"From: a@us.test\r\n" + b"".join(name + b": x\r\n" for name in names) + b"\r\nHello.\r\n"
    (field,) = fields_for(raw)
    listed = TagList.parse(field.value).compact("h").split(b":")
    assert sum(name.startswith(b"List-") for name in listed) == signed_names
    assert result_of(signed(raw, our_key("ed25519-sha256"))).status is DkimStatus.PASS


def header_of(*names: bytes, value: bytes = b" x") -> list[HeaderField]:
    return [HeaderField(name, value) for name in names]


def test_what_is_signed_is_kept_for_the_same_names_in_the_same_order() -> None:
    choices = Choices()
    kept = choices.of(header_of(b"To", b"From", b"Subject"))
    assert choices.of(header_of(b"To", b"From", b"Subject", value=b" y")) is kept
    for other in (b"From To Subject", b"To From", b"To From Subject To", b"To From SUBJECT", b"To From Subject X-Y"):
        assert choices.of(header_of(*other.split())) is not kept


@given(st.lists(st.lists(st.sampled_from(["To", "to", "Cc", "List-Id", "X-Y"]), max_size=4), min_size=2, max_size=5))
def test_messages_before_it_change_nothing_in_a_signature(headers: list[list[str]]) -> None:
    rules = SigningRules()
    for number, names in enumerate([*headers, *headers]):
        raw = b"From: <a@us.test>\r\n" + b"".join(b"%s: %d\r\n" % (name.encode(), number) for name in names) + b"\r\n"
        assert fields_for(raw, our_key("ed25519-sha256"), rules=rules) == fields_for(raw, our_key("ed25519-sha256"))


def test_what_is_kept_has_a_bound() -> None:
    choices = Choices()
    first = choices.of(header_of(b"From"))
    for number in range(MAX_KEPT_CHOICES - 1):
        choices.of(header_of(b"From", b"X-%d" % number))
    assert choices.of(header_of(b"From")) is first
    choices.of(header_of(b"From", b"Y"))
    assert choices.of(header_of(b"From")) is not first


@pytest.mark.parametrize(
    ("names", "is_kept"),
    [
        ([b"To"] * MAX_KEPT_FIELDS, True),
        ([b"To"] * (MAX_KEPT_FIELDS + 1), False),
        ([b"From", b"X" * (MAX_KEPT_OCTETS - 4)], True),
        ([b"From", b"X" * (MAX_KEPT_OCTETS - 3)], False),
    ],
    ids=["most fields", "more fields", "most octets", "more octets"],
)
def test_what_a_large_header_has_signed_is_not_kept(names: list[bytes], is_kept: bool) -> None:
    choices = Choices()
    assert (choices.of(header_of(*names)) is choices.of(header_of(*names))) is is_kept
