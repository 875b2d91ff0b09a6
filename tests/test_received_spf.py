"""Received-SPF (RFC 7208 §9.1): what it says, and what strangers' values may not do to it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailguard.domain import Domain
from mailguard.envelope import Envelope
from mailguard.message import HeaderField
from mailguard.spf.received import received_spf
from mailguard.spf.result import SpfIdentity, SpfReason, SpfResult, SpfStatus
from spf_asking import EVIL_IP, Z0, Zone, envelope, session

RECEIVER = "mx.us.test"

# RFC 7208 §9.1 and RFC 5322 §3.2, as strict as a reader may be.
_FWS = r"(?:(?:\r\n)?[ \t]+)"
_ATOM = r"[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]+"
_QUOTED = r'"(?:[ !#-\[\]-~]|\\[ -~])*"'
_PAIR = rf"[a-z-]+=(?:{_ATOM}(?:\.{_ATOM})*|{_QUOTED})"
FIELD = re.compile(
    rf"{_FWS}(?P<result>pass|fail|softfail|neutral|none|temperror|permerror){_FWS}"
    rf"\((?P<comment>(?:[ !-'*-\[\]-~]|\r\n[ \t])*)\){_FWS}(?P<pairs>{_PAIR}(?:;{_FWS}{_PAIR})*)"
)


def read(field: HeaderField) -> tuple[str, str, dict[str, str]]:
    """Result, comment, and values without their quotes."""
    assert field.name == b"Received-SPF"
    text = field.value.decode("ascii")
    found = FIELD.fullmatch(text)
    assert found is not None, text
    values = {}
    for pair in re.findall(_PAIR, found["pairs"]):
        key, _, value = pair.partition("=")
        assert key not in values
        values[key] = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
    return found["result"], found["comment"].replace("\r\n", ""), values


def lines(field: HeaderField) -> list[str]:
    return field.raw.decode("ascii").split("\r\n")


def of(
    zone: Zone,
    mail_from: str = "x@evil.test",
    ip: str = EVIL_IP,
    helo: str = "evil.test",
    identity: SpfIdentity = SpfIdentity.MAIL_FROM,
) -> HeaderField:
    result = session(zone, mail_from, ip, helo=helo, identity=identity).result
    return received_spf(result, envelope(mail_from, ip, helo), receiver=RECEIVER)


@pytest.mark.parametrize(
    ("record", "expected", "rest"),
    [
        (f"v=spf1 ip4:{EVIL_IP} -all", "pass", {"mechanism": f"ip4:{EVIL_IP}"}),
        ("v=spf1 -all", "fail", {"mechanism": "-all"}),
        ("v=spf1 ~all", "softfail", {"mechanism": "~all"}),
        ("v=spf1 ?all", "neutral", {"mechanism": "?all"}),
        ("v=spf1", "neutral", {"mechanism": "default"}),
        ("hello", "none", {}),
        ("v=spf1 foo", "permerror", {"problem": "record-syntax"}),
        ("v=spf1 a:.x.test -all", "fail", {"mechanism": "-all"}),
    ],
)
def test_results(record: str, expected: str, rest: dict[str, str]) -> None:
    result, comment, values = read(of({"evil.test": {"TXT": [record]}}))
    assert result == expected
    assert comment.startswith(f"{RECEIVER}: evil.test: ")
    assert values == {
        "client-ip": EVIL_IP,
        "envelope-from": "x@evil.test",
        "helo": "evil.test",
        "receiver": RECEIVER,
        **rest,
        "identity": "mailfrom",
    }


def test_the_whole_field() -> None:
    field = of({"evil.test": {"TXT": [f"v=spf1 ip4:{EVIL_IP} -all"]}})
    assert lines(field) == [
        "Received-SPF: pass (mx.us.test: evil.test: the domain permits the client)",
        f' client-ip={EVIL_IP}; envelope-from="x@evil.test"; helo=evil.test;',
        ' receiver=mx.us.test; mechanism="ip4:198.51.100.66"; identity=mailfrom',
    ]


def test_the_null_sender() -> None:
    values = read(of({"evil.test": {"TXT": ["v=spf1 -all"]}}, mail_from=""))[2]
    assert values["envelope-from"] == "<>"


def test_the_helo_identity_has_no_reverse_path() -> None:
    result, _, values = read(of({"helo.test": {"TXT": ["v=spf1 -all"]}}, helo="helo.test", identity=SpfIdentity.HELO))
    assert result == "fail"
    assert (values["identity"], values["helo"], "envelope-from" in values) == ("helo", "helo.test", False)


def test_an_ipv6_client_is_quoted() -> None:
    field = of({"evil.test": {"TXT": ["v=spf1 -all"]}}, ip="2001:db8::66")
    assert b'client-ip="2001:db8::66";' in field.value


def test_without_an_address() -> None:
    result = session(Z0, ip=None).result
    _, _, values = read(received_spf(result, envelope(ip=None), receiver=RECEIVER))
    assert "client-ip" not in values
    assert (
        read(received_spf(result, envelope(ip="fe80::1%eth0"), receiver=RECEIVER))[2]["client-ip"] == "fe80::1%eth0"
    )


@pytest.mark.attack("E")
@pytest.mark.parametrize(
    ("mail_from", "helo"),
    [
        pytest.param("any@bank.test(a.evil.test", "evil.test", id="E03 paren"),
        pytest.param("any@bank.test'@any.evil.test", "evil.test", id="E04 quote"),
        pytest.param('"x@bank.test"@evil.test', "evil.test", id="E06 quoted"),
        pytest.param("ö@evil.test", "evil.test", id="E08 8-bit"),
        pytest.param(b"\xff@evil.test", "evil.test", id="E09 no UTF-8"),
        pytest.param("x@evil.test", b"\xff\xfe", id="E13 HELO"),
        pytest.param("x@evil.test", "a" * 1_000, id="E14 1,000 characters"),
        pytest.param("", "[198.51.100.66]", id="E14 literal"),
        pytest.param("", "[x]", id="E14 brackets"),
        pytest.param("x@evil.test", "a b (c) ; d=e", id="E14 spaces and specials"),
        pytest.param("x@evil.test", 'a"; identity=helo; x="', id="E14 an attempt to end the quotes"),
        pytest.param("x@evil.test", "a\\", id="E14 backslash at the end"),
        pytest.param("x@evil.test", b"a\r\nX-Evil: 1", id="E14 CRLF"),
        pytest.param(b"x\r\n\r\nbody@evil.test", b"a\n\tb\0", id="E14 LF, NUL"),
        pytest.param("x" * 3_000 + "@evil.test", "\\" * 2_000, id="E14 long path, quotes to escape"),
    ],
)
def test_what_strangers_write_stays_a_value(mail_from: str | bytes, helo: str | bytes) -> None:
    for identity in SpfIdentity:
        asked = session(Z0, mail_from, helo=helo, identity=identity)
        field = received_spf(asked.result, envelope(mail_from, helo=helo), receiver=RECEIVER)
        _, _, values = read(field)
        assert values["identity"] == identity.value
        assert max(map(len, lines(field))) <= 998
        assert all(line.startswith(" ") for line in lines(field)[1:])
        assert all(len(value) <= 256 for value in values.values())


@pytest.mark.attack("E14")
@pytest.mark.parametrize(
    "word",
    [
        "=?utf-8?q?x=0AAuthentication-Results:_mx.us.test;_dmarc=3Dpass=0A?=",
        "=?utf-8?b?eA==?==",
        "?utf-8?q?x?=",
        "=?utf-8?q?x\x01=",
    ],
)
def test_no_value_is_an_encoded_word(word: str) -> None:
    """RFC 2047 §2: it ends with "?=", and begins with that of "helo=" where the value begins with "?"."""
    for sent in (word, f"{word}@evil.test"):
        asked = session(Z0, sent, helo=word)
        field = received_spf(asked.result, envelope(sent, helo=word), receiver=RECEIVER)
        assert b"?=" not in field.value


def test_a_term_of_a_stranger_is_quoted() -> None:
    field = of(
        {
            "evil.test": {"TXT": ['v=spf1 -exists:";(x).%{l}.evil.test ?all']},
            '";(x).x.evil.test': {"A": ["127.0.0.2"]},
        }
    )
    result, comment, values = read(field)
    assert (result, values["mechanism"]) == ("fail", '-exists:";(x).%{l}.evil.test')
    assert "exists" not in comment


def test_lines_are_short_where_they_can_be() -> None:
    field = of({"evil.test": {"TXT": ["v=spf1 -all"]}}, helo="h" * 200, mail_from="y" * 100 + "@evil.test")
    long = [line for line in lines(field) if len(line) > 78]
    assert [line.strip().partition("=")[0] for line in long] == ["envelope-from", "helo"]


def test_a_long_receiver_is_cut() -> None:
    field = received_spf(session(Z0).result, envelope(), receiver="r" * 2_000)
    assert max(map(len, lines(field))) <= 400
    assert read(field)[2]["receiver"] == "r" * 256


texts = st.text(max_size=300)


@given(
    st.sampled_from(SpfStatus),
    st.sampled_from(SpfReason),
    st.sampled_from(SpfIdentity),
    texts,
    texts,
    st.binary(max_size=400),
    st.binary(max_size=400),
    st.booleans(),
)
def test_the_field_is_well_formed_whatever_it_says(
    status: SpfStatus,
    reason: SpfReason,
    identity: SpfIdentity,
    mechanism: str,
    receiver: str,
    mail_from: bytes,
    helo: bytes,
    is_null_sender: bool,
) -> None:
    result = SpfResult(
        status=status,
        reason=reason,
        detail="one ) \\ two",
        identity=identity,
        domain=Domain.parse("evil.test"),
        is_null_sender=is_null_sender,
        mechanism=mechanism,
    )
    asked = Envelope(client_ip=None, helo=helo, mail_from=mail_from)
    field = received_spf(result, asked, receiver=receiver)
    assert read(field)[0] == status.value
    assert max(map(len, lines(field))) <= 998
