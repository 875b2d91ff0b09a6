"""DANE against the cases of others: OpenSSL's chains, and the decisions of RFC 7672 (see each SOURCE.txt)."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml

from dane_asking import found, zone
from dane_certificates import NOW, Made, server, spki
from mailguard.dane.discover import InsecureMx
from mailguard.dane.record import CertificateUsage, MatchingType, Selector, parse_tlsa, why_unusable
from mailguard.dane.result import DanePolicy, DaneStatus, HostOutcome, HostPolicy, TlsaReason, TlsaResult, TlsaStatus
from mailguard.dane.verify import tlsa_of, verify_tlsa
from mailguard.dns.question import TLSA, Dnssec, Question, RecordType, Status
from mailguard.dns.zone import ZoneResolver
from vectors import require

# -- OpenSSL's chains ---------------------------------------------------------------------------------------------

# "certs valid to year 3015".
VECTORS_NOW = 1_700_000_000.0
HEAD = re.compile(r"(\d+) (\d+) ([01]) (\d+) (-?\d+)")
RECORD = re.compile(r"\d+ \d+ \d+ [0-9a-fA-F]+")
# X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_DANE_NO_MATCH.
CODES = {TlsaReason.MATCHED: 0, TlsaReason.NAME: 62, TlsaReason.NO_MATCH: 65}


@dataclass
class Block:
    """One of OpenSSL's cases."""

    without_names: bool
    code: int
    depth: int
    stated: int
    records: list[TLSA] = field(default_factory=list)
    chain: list[bytes] = field(default_factory=list)

    @property
    def is_for_smtp(self) -> bool:
        return any(record.usage in (CertificateUsage.DANE_TA, CertificateUsage.DANE_EE) for record in self.records)


def blocks() -> list[Block]:
    made: list[Block] = []
    encoded: list[str] | None = None
    for line in (require("dane-openssl") / "danetest.in").read_text("ascii").splitlines():
        if line == "-----BEGIN CERTIFICATE-----":
            encoded = []
        elif line == "-----END CERTIFICATE-----":
            assert encoded is not None
            made[-1].chain.append(base64.b64decode("".join(encoded)))
            encoded = None
        elif encoded is not None:
            encoded.append(line)
        elif head := HEAD.fullmatch(line):
            count, certificates, names, code, depth = map(int, head.groups())
            made.append(Block(bool(names), code, depth, count))
            assert certificates in (1, 2, 3)
        elif RECORD.fullmatch(line):
            made[-1].records.append(parse_tlsa(line))
    return made


def code_of(result: TlsaResult, block: Block) -> int:
    """OpenSSL checks the names for DANE-EE(3) too unless told not to; SMTP never does, and the result tells them."""
    is_by_leaf = result.record is not None and result.record.usage == CertificateUsage.DANE_EE
    if is_by_leaf and not block.without_names and result.matched_name is None:
        return CODES[TlsaReason.NAME]
    return CODES[result.reason]


def test_chains_of_openssl() -> None:
    """Every block with usages 2 and 3 gives its code and depth; those with 0 and 1 alone are unusable."""
    compared, unusable, all_blocks = 0, 0, blocks()
    assert len(all_blocks) == 54
    for number, block in enumerate(all_blocks, 1):
        # Where a block has more records than it says, both readings have to give what it expects.
        for records in (block.records, block.records[: block.stated]):
            result = verify_tlsa(block.chain, records, reference_ids=("example.com",), now=VECTORS_NOW)
            if not block.is_for_smtp:
                assert result.status is TlsaStatus.UNUSABLE, number
                assert all(why_unusable(record) for record in records), number
                continue
            depth = -1 if result.depth is None else result.depth
            assert (code_of(result, block), depth) == (block.code, block.depth), (number, result)
        compared += block.is_for_smtp
        unusable += not block.is_for_smtp
    assert (compared, unusable) == (34, 20)


# -- the decisions of RFC 7672 --------------------------------------------------------------------------------------

Case = Mapping[str, Any]
STATUSES = {"bogus": Status.BOGUS, "servfail": Status.TEMPFAIL, "timeout": Status.TEMPFAIL}
OUTCOMES = {"skip-host-or-defer": HostOutcome.SKIP.value, "defer": DaneStatus.DEFER.value}


def cases() -> tuple[list[Case], Case]:
    document = yaml.safe_load((require("dane-smtp-rfc7672") / "cases.yaml").read_text("utf-8"))
    return document["cases"], document["rfc7672_3_2_2_zone"]


def tlsa(text: str) -> tuple[int, int, int, bytes]:
    record = parse_tlsa(text)
    # In full, the cases have the first octets of a key in place of one.
    return record if record.matching_type != MatchingType.FULL else record._replace(data=spki("any"))


def zone_of(dns: Case) -> ZoneResolver:
    records: dict[str, dict[str, list[Any]]] = {
        "example.com": {"MX": [(10, "mx.example.com")]},
        "relay.example.com": {"A": ["192.0.2.2"]},
    }
    dnssec: dict[tuple[str, str], Dnssec] = {}
    status: dict[tuple[str, str], Status] = {}

    def say(name: str, rdtype: str, said: str) -> None:
        word = said.removesuffix("-nxdomain").removesuffix("-nodata")
        if word in STATUSES:
            status[name, rdtype] = STATUSES[word]
        else:
            dnssec[name, rdtype] = Dnssec(word)
        if said.endswith("-nodata"):
            records.setdefault(name, {})

    say("example.com", "MX", dns.get("mx", "secure"))
    host = "mx.example.com"
    for alias, (said, target) in dns.get("cname", {}).items():
        records[alias] = {"CNAME": [target]}
        say(alias, "*", said)
        host = target
    records[host] = {"A": ["192.0.2.1"], "AAAA": ["2001:db8::1"]}
    for name in (host, "relay.example.com"):
        say(name, "*", dns.get("addr", "secure"))
    for alias, (said, target) in dns.get("tlsa_cname", {}).items():
        records[alias] = {"CNAME": [target]}
        say(alias, "*", said)
    for name, (said, texts) in dns.get("tlsa", {}).items():
        if texts:
            records[name] = {"TLSA": [tlsa(text) for text in texts]}
        say(name, "*", said)
    return ZoneResolver(records, status=status, dnssec=dnssec)


def destination_of(dns: Case) -> str:
    if "next_hop_port" in dns:
        return f"[relay.example.com]:{dns['next_hop_port']}"
    return str(dns.get("next_hop", "example.com"))


def says(policy: DanePolicy) -> str:
    return policy.hosts[0].outcome.value if policy.hosts else policy.status.value


def outcome_of_check(host: HostPolicy, made: Made, chain: list[bytes]) -> TlsaStatus:
    """What becomes of a server with this chain, where the record of the host has the digest of `made`."""
    (record,) = host.records.taken
    return verify_tlsa(chain, [matching(record, made)], reference_ids=host.reference_ids, now=NOW).status


def matching(record: TLSA, made: Made) -> TLSA:
    """The record with the digest of this certificate."""
    selector, matching_type = Selector(record.selector), MatchingType(record.matching_type)
    return tlsa_of(made.der, usage=CertificateUsage(record.usage), selector=selector, matching_type=matching_type)


def compare(case: Case, policy: DanePolicy, asked: list[Question]) -> None:
    """Every key of `expect`, each in its way."""
    host = policy.hosts[0] if policy.hosts else None
    tlsa_names = [question.name for question in asked if question.rdtype is RecordType.TLSA]
    for key, expected in case["expect"].items():
        match key:
            case "policy":
                wanted = expected if isinstance(expected, list) else [expected]
                assert says(policy) in [OUTCOMES.get(word, word) for word in wanted]
            case "cleartext_fallback":
                assert host is not None
                assert (host.outcome is HostOutcome.OPPORTUNISTIC) is expected
            case "tlsa_query_sent":
                assert bool(tlsa_names) is expected
            case "tlsa_query_order":
                assert tlsa_names == expected
            case "base_domain":
                assert host is not None
                assert host.base_domain == expected
            case "reference_ids":
                assert host is not None
                assert list(host.reference_ids) == expected
            case "reference_ids_if_dane":
                assert host is not None
                assert host.outcome is HostOutcome.OPPORTUNISTIC or list(host.reference_ids) == expected
            case "usable":
                assert host is not None
                assert [str(record) for record in (*host.records.taken, *host.records.weaker)] == expected
            case "considered_matching_types":
                assert host is not None
                assert sorted({record.matching_type for record in host.records.taken}) == expected
            case "considered":
                assert host is not None
                assert {str(record)[:5] for record in host.records.taken} == set(expected)
            case "name_check":
                assert host is not None
                authority = Made.of("authority")
                stranger = server(authority, "elsewhere.test")
                made = stranger if host.records.taken[0].usage == CertificateUsage.DANE_EE else authority
                is_accepted = outcome_of_check(host, made, [stranger.der, authority.der]) is TlsaStatus.AUTHENTICATED
                assert is_accepted is not expected
            case "expiry_check":
                assert host is not None
                expired = server(None, "mx.example.com", days=(-30, -10))
                is_accepted = outcome_of_check(host, expired, [expired.der]) is TlsaStatus.AUTHENTICATED
                assert is_accepted is not expected
            case "deliver":
                assert host is not None
                other = server(None, "mx.example.com")
                result = verify_tlsa([other.der], host.records.taken, reference_ids=host.reference_ids, now=NOW)
                is_delivered = host.outcome is not HostOutcome.AUTHENTICATE or result.status is not TlsaStatus.FAILED
                assert is_delivered is expected
            case _:
                raise AssertionError(f"a key that nothing compares: {key}")


def test_decisions_of_rfc_7672() -> None:
    """27 of 27, with MX records that are not secure in both ways that are permitted."""
    every, _ = cases()
    for case in every:
        for insecure_mx in InsecureMx:
            policy, asked = found(destination_of(case["dns"]), zone_of(case["dns"]), insecure_mx=insecure_mx)
            try:
                compare(case, policy, asked)
            except AssertionError as error:
                raise AssertionError(f"{case['id']}: {policy}") from error
    assert len(every) == 27


@pytest.mark.attack("T05")
def test_names_of_rfc_7672_3_2_2() -> None:
    """The zone of the RFC: aliases of the domain, of hosts, TLSA records at either end of them."""
    _, given = cases()
    records: dict[str, dict[str, list[Any]]] = {}
    for line in given["zone"]:
        owner, rdtype, *rest = line.split()
        value: Any = rest[0]
        if rdtype == "MX":
            value = (int(rest[0]), rest[1])
        elif rdtype == "TLSA":
            value = (2, 0, 1, "cd" * 32)
        records.setdefault(owner.removesuffix("."), {}).setdefault(rdtype, []).append(value)
    policy, _ = found(given["nexthop"], zone(records))
    assert policy.mx_dnssec is Dnssec.SECURE
    assert {host.name: list(host.reference_ids) for host in policy.hosts} == given["expect_reference_ids"]
    assert {host.outcome for host in policy.hosts} == {HostOutcome.AUTHENTICATE}
    assert [host.preference for host in policy.hosts] == [10, 15, 20]
    # Each of these names, and no other, makes a certificate of the anchor good.
    authority = Made.of("authority")
    for host in policy.hosts:
        records_of_anchor = [matching(host.records.taken[0], authority)]
        for name in (*host.reference_ids, "mail.example.org", "mx30.example.com"):
            chain = [server(authority, name).der, authority.der]
            result = verify_tlsa(chain, records_of_anchor, reference_ids=host.reference_ids, now=NOW)
            assert (result.status is TlsaStatus.AUTHENTICATED) is (name in host.reference_ids), (host.name, name)
