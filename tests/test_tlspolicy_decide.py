"""What Postfix is told: the table of DANE and MTA-STS, keys of every kind, overrides, and the words of the policy.

RFC 7672 §2.2 (outcomes), RFC 8461 §2 (MTA-STS never overrides DANE), RFC 8461 §3.4 (whose policy).
ATTACKS.md rows: T02.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import pytest

from dane_asking import EE, Records, found, zone
from mailguard.dane.discover import InsecureMx, discover
from mailguard.dns.answers import evaluate
from mailguard.dns.question import Dnssec, Status
from mailguard.dns.zone import ZoneResolver
from mailguard.mtasts.policy import MAX_PATTERNS, StsPolicy
from mailguard.tlspolicy.decide import Decision, DecisionStatus, Level, Mixed, Why, is_sts_needed, weigh
from mailguard.tlspolicy.next_hop import NextHop, Parent, parse_key
from mailguard.tlspolicy.override import DEFAULT, Overrides
from mailguard.tlspolicy.policy_text import policy_text, reply_to
from mailguard.tlspolicy.socketmap import MAX_REPLY_BYTES, ReplyStatus
from mtasts_asking import policy

UNUSABLE = (0, 0, 1, "ab" * 32)
ENFORCE, TESTING, NONE = (policy(mode=mode, mx="*.example.com") for mode in ("enforce", "testing", "none"))
SERVFAIL = Status.TEMPFAIL


def domain_with(**hosts: Sequence[object] | None) -> Records:
    """example.com with these MX hosts: their TLSA records, or None for a host without address."""
    records: dict[str, Mapping[str, Sequence[object]]] = {
        "example.com": {"MX": [(10 * at, f"{name}.example.com") for at, name in enumerate(hosts, 1)]}
    }
    for name, tlsa in hosts.items():
        if tlsa is None:
            continue
        records[f"{name}.example.com"] = {"A": ["192.0.2.1"]}
        if tlsa:
            records[f"_25._tcp.{name}.example.com"] = {"TLSA": tlsa}
    return records


def decided(
    resolver: ZoneResolver,
    sts: StsPolicy | None = None,
    *,
    key: bytes = b"example.com",
    insecure_mx: str = "may",
    mixed: Mixed = Mixed.DANE,
) -> Decision:
    asked = parse_key(key)
    assert isinstance(asked, NextHop)
    rule = InsecureMx(insecure_mx)
    return evaluate(
        lambda answers: weigh(asked, discover(asked.destination, answers, insecure_mx=rule), sts, mixed=mixed),
        resolver,
        deadline=time.monotonic() + 5,
    )


def said(decision: Decision) -> str:
    assert (decision.level is not None) is (decision.status is DecisionStatus.FOUND)
    assert (decision.sts is not None) is (decision.level is Level.SECURE)
    return decision.level.value if decision.level is not None else decision.status.value


TLSA_A = ("_25._tcp.a.example.com", "TLSA")
NO_POLICY, SECURE, TEMP = "not-found", "secure", "temporary"

# hosts, what fails, without MTA-STS, with a policy in enforce
TABLE = [
    pytest.param(domain_with(a=[EE]), {}, "dane-only", "dane-only", id="one-usable"),
    pytest.param(domain_with(a=[EE], b=[EE]), {}, "dane-only", "dane-only", id="all-usable"),
    pytest.param(domain_with(a=[EE], b=[UNUSABLE, EE]), {}, "dane-only", "dane-only", id="usable-among-others"),
    pytest.param(domain_with(a=[EE], b=None), {}, "dane-only", "dane-only", id="a-host-without-address-is-none"),
    pytest.param(domain_with(a=[EE], b=[]), {}, "dane", "dane-only", id="some"),
    pytest.param(domain_with(a=[], b=[EE]), {}, "dane", "dane-only", id="some-the-second"),
    pytest.param(domain_with(a=[EE], b=[UNUSABLE]), {}, "dane", "dane-only", id="usable-and-unusable"),
    pytest.param(domain_with(a=[UNUSABLE]), {}, "dane", SECURE, id="unusable"),
    pytest.param(domain_with(a=[UNUSABLE], b=[]), {}, "dane", SECURE, id="unusable-and-none"),
    pytest.param(domain_with(a=[]), {}, NO_POLICY, SECURE, id="no-records"),
    pytest.param(domain_with(a=None), {}, NO_POLICY, SECURE, id="no-address"),
    pytest.param(domain_with(a=[EE]), {TLSA_A: SERVFAIL}, TEMP, TEMP, id="servfail-tlsa"),
    pytest.param(domain_with(a=[]), {TLSA_A: SERVFAIL}, TEMP, TEMP, id="servfail-no-records"),
    pytest.param(domain_with(a=[EE]), {TLSA_A: Status.BOGUS}, TEMP, TEMP, id="bogus-tlsa"),
    pytest.param(domain_with(a=[EE]), {("a.example.com", "A"): SERVFAIL}, TEMP, TEMP, id="servfail-address"),
    pytest.param(domain_with(a=[EE]), {("example.com", "MX"): SERVFAIL}, TEMP, TEMP, id="servfail-mx"),
    pytest.param(domain_with(a=[EE]), {("example.com", "MX"): Status.BOGUS}, TEMP, TEMP, id="bogus-mx"),
    pytest.param(domain_with(a=[EE], b=[EE]), {TLSA_A: SERVFAIL}, "dane-only", "dane-only", id="servfail-one-of-two"),
    pytest.param(domain_with(a=[EE], b=[]), {TLSA_A: SERVFAIL}, "dane", TEMP, id="servfail-beside-none"),
    pytest.param(domain_with(a=[EE], b=[UNUSABLE]), {TLSA_A: SERVFAIL}, "dane", TEMP, id="servfail-beside-unusable"),
    pytest.param(
        domain_with(a=[EE], b=[EE], c=[]), {TLSA_A: SERVFAIL}, "dane", "dane-only", id="servfail-beside-some"
    ),
    pytest.param({"example.com": {"MX": [(0, ".")]}}, {}, NO_POLICY, SECURE, id="null-mx"),
    pytest.param({"other.example": {}}, {}, NO_POLICY, SECURE, id="no-domain"),
    pytest.param(
        {"example.com": {"A": ["192.0.2.1"]}, "_25._tcp.example.com": {"TLSA": [EE]}},
        {},
        "dane-only",
        "dane-only",
        id="no-mx",
    ),
]


@pytest.mark.attack("T02")
@pytest.mark.parametrize(("records", "status", "alone", "with_sts"), TABLE)
def test_dane_before_mta_sts(
    records: Records, status: dict[tuple[str, str], Status], alone: str, with_sts: str
) -> None:
    resolver = zone(records, status=status)
    assert said(decided(resolver)) == alone
    assert said(decided(resolver, ENFORCE)) == with_sts
    for weak in (TESTING, NONE):
        assert said(decided(resolver, weak)) == alone


@pytest.mark.parametrize(("records", "status", "alone", "with_sts"), TABLE)
def test_a_policy_demands_no_less_than_none(
    records: Records, status: dict[tuple[str, str], Status], alone: str, with_sts: str
) -> None:
    strength = [NO_POLICY, "dane", SECURE, "dane-only", TEMP]
    assert strength.index(with_sts) >= strength.index(alone)


@pytest.mark.parametrize(("records", "status", "alone", "with_sts"), TABLE)
def test_a_policy_is_looked_for_exactly_where_it_makes_a_difference(
    records: Records, status: dict[tuple[str, str], Status], alone: str, with_sts: str
) -> None:
    policy, _ = found("example.com", zone(records, status=status))
    assert is_sts_needed(policy) is (alone != with_sts)


@pytest.mark.parametrize(
    ("records", "status", "sts", "why"),
    [
        (domain_with(a=[EE]), {}, None, Why.ALL_DANE),
        (domain_with(a=[EE], b=[]), {}, None, Why.SOME_DANE),
        (domain_with(a=[UNUSABLE]), {}, None, Why.UNUSABLE_RECORDS),
        (domain_with(a=[EE]), {TLSA_A: SERVFAIL}, None, Why.LOOKUP_FAILED),
        (domain_with(a=[EE], b=[]), {TLSA_A: SERVFAIL}, None, Why.HOST_UNKNOWN),
        (domain_with(a=[EE], b=[UNUSABLE]), {TLSA_A: SERVFAIL}, None, Why.UNUSABLE_RECORDS),
        (domain_with(a=[]), {}, NONE, Why.NO_POLICY),
        (domain_with(a=[]), {}, TESTING, Why.STS_TESTING),
        (domain_with(a=[]), {}, ENFORCE, Why.STS_ENFORCE),
    ],
)
def test_why(records: Records, status: dict[tuple[str, str], Status], sts: StsPolicy | None, why: Why) -> None:
    assert decided(zone(records, status=status), sts).why is why


@pytest.mark.attack("T02")
@pytest.mark.parametrize("dnssec", [Dnssec.BOGUS, Dnssec.INDETERMINATE])
def test_what_is_not_proven_is_no_denial(dnssec: Dnssec) -> None:
    """RFC 7672 §2.1.1."""
    resolver = zone(domain_with(a=[EE]), dnssec={TLSA_A: dnssec})
    assert said(decided(resolver)) == TEMP
    assert said(decided(resolver, ENFORCE)) == TEMP


@pytest.mark.attack("T01")
def test_records_behind_an_insecure_mx_count_as_the_rule_says() -> None:
    resolver = zone(domain_with(a=[EE]), dnssec={("example.com", "MX"): Dnssec.INSECURE})
    for sts, expected in ((None, NO_POLICY), (NONE, NO_POLICY), (TESTING, NO_POLICY), (ENFORCE, SECURE)):
        assert said(decided(resolver, sts)) == expected
    # Postfix takes no unsigned MX record for `dane-only`.
    dane = decided(resolver, insecure_mx="dane")
    assert (said(dane), dane.why) == ("dane", Why.INSECURE_MX)


@pytest.mark.attack("T01", "T02")
@pytest.mark.parametrize(
    ("records", "alone", "strict"),
    [
        (domain_with(a=[EE]), "dane", NO_POLICY),
        (domain_with(a=[EE], b=[]), "dane", NO_POLICY),
        (domain_with(a=[UNUSABLE]), "dane", NO_POLICY),
        (domain_with(a=[]), NO_POLICY, NO_POLICY),
    ],
)
def test_who_forges_mx_records_does_not_get_round_mta_sts(records: Records, alone: str, strict: str) -> None:
    """RFC 8461 §2: a host with TLSA records in a forged MX record is not DANE of the destination."""
    for status in ({}, {TLSA_A: SERVFAIL}):
        resolver = zone(records, dnssec={("example.com", "MX"): Dnssec.INSECURE}, status=status)
        for insecure_mx in InsecureMx:
            policy, _ = found("example.com", resolver, insecure_mx=insecure_mx)
            assert is_sts_needed(policy)
            assert said(decided(resolver, ENFORCE, insecure_mx=insecure_mx.value)) == SECURE
        expected = "dane" if status else alone
        assert said(decided(resolver, insecure_mx="dane")) == expected
        assert said(decided(resolver, insecure_mx="dane", mixed=Mixed.DANE_ONLY)) == strict


def test_a_failure_behind_an_insecure_mx_does_not_matter() -> None:
    resolver = zone(domain_with(a=[EE]), dnssec={("example.com", "MX"): Dnssec.INSECURE}, status={TLSA_A: SERVFAIL})
    assert said(decided(resolver, ENFORCE)) == SECURE


@pytest.mark.attack("T02")
@pytest.mark.parametrize(("records", "status", "alone", "with_sts"), TABLE)
def test_a_site_that_demands_more_than_dane_never_gets_dane(
    records: Records, status: dict[tuple[str, str], Status], alone: str, with_sts: str
) -> None:
    """The reply takes the place of smtp_tls_security_level; at `dane` a host without DANE gets mail in the clear."""
    resolver = zone(records, status=status)
    strict = said(decided(resolver, mixed=Mixed.DANE_ONLY))
    assert strict in (("dane-only", TEMP) if alone == "dane" else (alone,))
    assert said(decided(resolver, ENFORCE, mixed=Mixed.DANE_ONLY)) == with_sts


PORT_RECORDS: Records = {
    "example.com": {"MX": [(10, "mx.example.com")]},
    "mx.example.com": {"A": ["192.0.2.1"]},
    "_25._tcp.mx.example.com": {"TLSA": []},
    "_587._tcp.mx.example.com": {"TLSA": [EE]},
    "example.com.": {"A": ["192.0.2.2"]},
}


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (b"example.com", NO_POLICY),
        (b"example.com:587", "dane-only"),
        (b"example.com:submission", "dane-only"),
        (b"[mx.example.com]", NO_POLICY),
        (b"[mx.example.com]:587", "dane-only"),
        (b"[MX.Example.COM]:submission", "dane-only"),
        (b"[mx.example.com]:465", NO_POLICY),
        (b"[192.0.2.1]", NO_POLICY),
        (b"[192.0.2.1]:587", NO_POLICY),
        (b"[IPv6:2001:db8::1]:587", NO_POLICY),
        (b"[2001:db8::1]", NO_POLICY),
    ],
)
def test_hosts_and_ports(key: bytes, expected: str) -> None:
    denied = {(f"_{port}._tcp.mx.example.com", "*"): Dnssec.SECURE for port in (25, 465)}
    assert said(decided(zone(PORT_RECORDS, dnssec=denied), key=key)) == expected


@pytest.mark.parametrize(
    ("key", "shown", "policy_domain", "parents"),
    [
        (b"example.com", "example.com", "example.com", [".com"]),
        (b"Mail.Example.COM.", "mail.example.com", "mail.example.com", [".example.com", ".com"]),
        (b"example.com:25", "example.com", "example.com", [".com"]),
        (b"example.com:587", "example.com:587", "example.com", []),
        (b"example.com:smtps", "example.com:465", "example.com", []),
        (b"[mx.example.com]", "[mx.example.com]", "mx.example.com", []),
        (b"[mx.example.com.]:2525", "[mx.example.com]:2525", "mx.example.com", []),
        (b"[192.0.2.1]:2525", "[192.0.2.1]:2525", None, []),
        (b"192.0.2.1", "[192.0.2.1]", None, []),
        ("b\u00fccher.example".encode(), "xn--bcher-kva.example", "xn--bcher-kva.example", [".example"]),
        (b"[XN--I-7IQ.ws]:587", "[xn--i-7iq.ws]:587", "xn--i-7iq.ws", []),
        # Names that a resolver looks up and that are no host names: DANE, and no policy host.
        (b"A_b.example.com", "a_b.example.com", None, [".example.com", ".com"]),
        (b"xn--a.ws", "xn--a.ws", None, [".ws"]),
        (b"[XN--A.ws]:587", "[xn--a.ws]:587", None, []),
        (b"[a_b.example.com]:587", "[a_b.example.com]:587", None, []),
    ],
)
def test_next_hops(key: bytes, shown: str, policy_domain: str | None, parents: list[str]) -> None:
    asked = parse_key(key)
    assert isinstance(asked, NextHop)
    assert (str(asked), asked.policy_domain, list(map(str, asked.parents()))) == (shown, policy_domain, parents)


def test_dane_for_names_that_are_no_host_names() -> None:
    for name in ("a_b.example.com", "xn--a.ws"):
        records: Records = {
            name: {"MX": [(10, f"mx.{name}")]},
            f"mx.{name}": {"A": ["192.0.2.1"]},
            f"_25._tcp.mx.{name}": {"TLSA": [EE]},
        }
        assert said(decided(zone(records), key=name.encode())) == "dane-only"


@pytest.mark.parametrize("key", [b".example.com", b".COM", b".a_b.Example.com", b".xn--i-7iq.ws"])
def test_parents(key: bytes) -> None:
    asked = parse_key(key)
    assert isinstance(asked, Parent)
    assert str(asked) == key.decode().lower()


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b".",
        b"..",
        b"private/lmtp",
        b"/var/run/lmtp",
        b"a..b",
        b"example.com..",
        b"[example.com",
        b"x y",
        b"a\x00b",
        b"example.com:0",
        b"example.com:65536",
        b"example.com:finger",
        b"2001:db8::1",
        b"\xff\xfe",
        b"-a_b.example.com",
        b"a_b." + b"x" * 64,
        b"a_b" + b".x" * 126,
        b"x" * 1000,
        b"[]",
        b"*",
        b"%s%n",
        b".[192.0.2.1]",
        b"user@example.com",
        b"\xd9\xa1.2.3.4:\xd9\xa2",
    ],
)
def test_what_is_no_next_hop(key: bytes) -> None:
    assert parse_key(key) is None


# -- the words of the policy --------------------------------------------------------------------------------------


def secure(*patterns: str) -> Decision:
    lines = "".join(f"mx: {pattern}\n" for pattern in patterns)
    read = StsPolicy.parse(f"version: STSv1\nmode: enforce\n{lines}max_age: 86400\n".encode())
    assert isinstance(read, StsPolicy)
    return decided(zone({"other.example": {}}), read)


@pytest.mark.parametrize(
    ("patterns", "match"),
    [
        (("mx.example.com",), "mx.example.com"),
        (("*.example.com",), ".example.com"),
        (("MX1.example.com", "*.example.net", "mx1.example.com"), "mx1.example.com:.example.net"),
        (("hostname", "mx.example.com", "nexthop", "dot-nexthop"), "mx.example.com"),
        (("Hostname", "*.hostname"), ".hostname"),
    ],
)
def test_the_policy_of_mta_sts(patterns: tuple[str, ...], match: str) -> None:
    """As a pattern, `hostname` would let every host pass that has a certificate for its own name."""
    assert policy_text(secure(*patterns)) == f"secure match={match} servername=hostname"


def test_a_policy_of_nothing_but_postfix_keywords_keeps_mail_back() -> None:
    decision = secure("hostname", "nexthop")
    assert (decision.status, decision.why) == (DecisionStatus.TEMPORARY, Why.STS_UNMATCHABLE)


def test_with_tls_reports() -> None:
    """TLSRPT_README of Postfix 3.10: the policy as it was applied, for a policy of MTA-STS alone."""
    assert policy_text(secure("a.example.com", "*.b.example"), with_tlsrpt=True) == (
        "secure match=a.example.com:.b.example servername=hostname policy_type=sts policy_domain=example.com"
        " { policy_string = version: STSv1 } { policy_string = mode: enforce } { policy_string = mx: a.example.com }"
        " { policy_string = mx: *.b.example } { policy_string = max_age: 86400 }"
        " mx_host_pattern=a.example.com mx_host_pattern=*.b.example"
    )
    dane = decided(zone(domain_with(a=[EE])))
    assert policy_text(dane, with_tlsrpt=True) == "dane-only"


def test_a_policy_as_long_as_can_be_fits_into_a_reply() -> None:
    """As many long patterns as a policy may have; with what is reported it would be more than Postfix takes."""
    names = [f"{'m' * 60}.{'n' * 60}.{'o' * 60}{number:03}.example.com" for number in range(MAX_PATTERNS)]
    decision = secure(*names)
    for with_tlsrpt in (False, True):
        octets = reply_to(decision, with_tlsrpt=with_tlsrpt).octets()
        assert len(octets) <= MAX_REPLY_BYTES
        assert octets.count(b":mmm") == MAX_PATTERNS - 1
        assert b"policy_type" not in octets


def test_replies() -> None:
    assert reply_to(decided(zone({"x.example": {}})), with_tlsrpt=True).octets() == b"9:NOTFOUND ,"
    failed = reply_to(decided(zone(domain_with(a=[EE]), status={TLSA_A: SERVFAIL})), with_tlsrpt=False)
    assert failed.status is ReplyStatus.TEMPORARY
    assert "a.example.com" in failed.text
    with pytest.raises(TypeError):
        bool(decided(zone({"x.example": {}})))
    with pytest.raises(ValueError, match="nothing"):
        policy_text(decided(zone({"x.example": {}})))
    assert Level("dane-only") is Level.DANE_ONLY


# -- overrides ----------------------------------------------------------------------------------------------------

OVERRIDES = Overrides(
    {
        "example.com": "dane-only",
        ".example.com": "encrypt",
        "free.example.com": "discover",
        "plain.example.com": "default",
        ".open.example.com": "default",
        ".seen.example.com": "discover",
        ".deep.example.com": "secure match=mx.example.net:.example.org servername=hostname",
        "[relay.example.net]:submission": "verify, match=relay.example.net  ciphers=high",
        "[192.0.2.1]": "none",
        "a_b.example.net": "secure",
        ".xn--i-7iq.ws": "encrypt",
    }
)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (b"example.com", "dane-only"),
        (b"EXAMPLE.com.", "dane-only"),
        (b"sub.example.com", "encrypt"),
        (b"a.b.example.com", "encrypt"),
        (b"free.example.com", None),
        (b"plain.example.com", DEFAULT),
        # Postfix asks for them when nothing is to be found for the name itself.
        (b".example.com", None),
        (b".open.example.com", None),
        (b"x.open.example.com", DEFAULT),
        (b"x.seen.example.com", None),
        (b"x.deep.example.com", "secure match=mx.example.net:.example.org servername=hostname"),
        (b"example.com:587", None),
        (b"[example.com]", None),
        (b"sub.example.com:587", None),
        (b"[relay.example.net]:587", "verify match=relay.example.net ciphers=high"),
        (b"[relay.example.net]", None),
        (b"[192.0.2.1]:25", "none"),
        (b"A_b.example.net", "secure"),
        (b"mail.xn--i-7iq.ws", "encrypt"),
        # Names for Postfix, which IDNA 2008 does not know.
        ("\U0001f48c.example.com".encode(), "encrypt"),
        ("a.\U0001f48c.open.example.com".encode(), DEFAULT),
        ("\U0001f48c.example".encode(), None),
        (b"private/lmtp.example.com", None),
        (b"other.example", None),
        (b".com", None),
    ],
)
def test_overrides(key: bytes, expected: str | None) -> None:
    assert OVERRIDES.policy_for(key, parse_key(key)) == expected


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("exa mple", "may", "no destination"),
        ("*.example.com", "may", "no destination"),
        ("example.com", "dane only", "only"),
        ("example.com", "", "security level"),
        ("example.com", "encrypted", "security level"),
        ("example.com", "secure match", "match"),
        ("example.com", "secure match=", "match"),
        ("example.com", "secure matches=a", "matches"),
        ("example.com", "dane match=a", "match is for"),
        ("example.com", "dane tafile=/x", "tafile is for"),
        ("example.com", "encrypted", 'did you mean "encrypt"'),
        ("example.com", "encrypt ciphers=hihg", 'one of export, low, medium, high, null; did you mean "high"'),
        ("example.com", "may ciphers=TLS_AES_128", "ciphers is one of"),
        ("example.com", "encrypt connection_reuse=maybe", "one of yes, no"),
        ("example.com", "encrypt enable_rpk=1", "one of yes, no"),
        ("example.com", "encrypt protocols=>=TLSv1.9", '">=TLSv1.9" is no protocol'),
        ("example.com", "encrypt protocols=TLSv1.2:TLSv1.4", '"TLSv1.4" is no protocol'),
        ("example.com", "encrypt protocols=!0x0303", "is no protocol"),
        ("example.com", "encrypt protocols=>=SSLv2", "is no protocol"),
        ("example.com", "encrypt protocols=>TLSv1.2", "is no protocol"),
        ("example.com", "fingerprint match=zz", "hexadecimal"),
        ("example.com", "fingerprint match=abc", "hexadecimal"),
        ("example.com", "fingerprint match=ab:cd|mx.example.com", "hexadecimal"),
        ("example.com", "secure servername=a servername=b", "twice"),
        ("example.com", "may\nciphers=low", "printable"),
        ("example.com", "may ciphers=l\u00f6w", "printable"),
        ("example.com", "may ciphers=" + "x" * 9000, "at most"),
    ],
)
def test_overrides_that_postfix_would_not_take(key: str, value: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Overrides({key: value})


@pytest.mark.parametrize(
    "policy",
    [
        "encrypt ciphers=HIGH",
        "may ciphers=null connection_reuse=Yes enable_rpk=no",
        "encrypt protocols=>=TLSv1.2",
        "encrypt protocols=!SSLv2:!SSLv3:TLSv1:tlsv1.1",
        "secure protocols=>=0x0303:<=0305",
        "secure match=zz",
        # main.cf may have smtp_tls_fingerprint_cert_match.
        "fingerprint",
        "fingerprint match=AB:cd:01|abcd01 match=00",
    ],
)
def test_overrides_that_postfix_takes(policy: str) -> None:
    key = b"example.com"
    assert Overrides({key.decode(): policy}).policy_for(key, parse_key(key)) == policy


def test_a_destination_is_overridden_once() -> None:
    with pytest.raises(ValueError, match="twice"):
        Overrides({"example.com": "may", "Example.COM:25": "encrypt"})
