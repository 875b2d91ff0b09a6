"""The records to publish, and that each form of them is read back as the same by somebody else's program."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import dns.message
import dns.query
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.zone
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from octodns.provider.yaml import YamlProvider
from octodns.zone import Zone

from bind_site import Bind
from dane_certificates import server as made_certificate
from mailguard.cli.dns_report import exit_code
from mailguard.dkim.signing_key import SigningKey, generate_ed25519, generate_rsa
from mailguard.dmarc.record import DmarcPolicy, DmarcRecord
from mailguard.dns.authoritative import normal_rdata
from mailguard.domain import Domain
from mailguard.errors import KeyFileError
from mailguard.records.choices import Choices, MailHost, PublicKey, Stage
from mailguard.records.compare import Comparison, Found, State, compare
from mailguard.records.fingerprints import certificate_key_digest, sshfp
from mailguard.records.generate import policy_address, policy_file, records
from mailguard.records.record import Record, quoted_strings
from mailguard.records.render import FORMATS, Publication
from sandbox_place import HOST

US = Domain.parse("us.test")
MX1, MX2 = Domain.parse("mx1.us.test"), Domain.parse("mx2.elsewhere.test")
DIGEST = bytes(range(32))
SSH = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f root@us"


def public(key: SigningKey) -> PublicKey:
    return PublicKey(key.selector, key.public_name, key.record(), key.algorithm, key.bits)


@pytest.fixture(scope="module")
def choices() -> Choices:
    keys = [
        SigningKey.from_bytes(pem, domain=US, selector=name)
        for name, pem in (("r4", generate_rsa(4096)), ("r2", generate_rsa()), ("e1", generate_ed25519()))
    ]
    return Choices(
        domain=US,
        keys=[public(key) for key in keys],
        hosts=[
            MailHost(name=MX1, preference=10, key_digests=[DIGEST], is_signed=True),
            MailHost(name=MX2, preference=20, key_digests=[DIGEST], is_signed=False),
        ],
        senders=["mx", "ip4:192.0.2.0/24"],
        reports="dmarc@reports.test",
        host_keys=[(MX1, sshfp(SSH) or "")],
    )


@pytest.fixture(scope="module")
def publication(choices: Choices) -> Publication:
    return Publication(US, records(choices), policy_file(choices), policy_address(choices))


def as_rdata(record: Record) -> tuple[str, str, str]:
    """By dnspython's own reading of the data."""
    data = dns.rdata.from_text(dns.rdataclass.IN, record.rdtype, record.rdata)
    return f"{record.name}.", record.rdtype, data.to_text()


def own(publication: Publication) -> set[tuple[str, str, str]]:
    """What belongs in the zone of the domain now."""
    return {as_rdata(each) for each in publication.records if not each.held_back and not each.zone}


# What is made

WANTED = [
    ("us.test", "MX", "10 mx1.us.test."),
    ("us.test", "MX", "20 mx2.elsewhere.test."),
    ("us.test", "TXT", "v=spf1 mx ip4:192.0.2.0/24 ~all"),
    ("_dmarc.us.test", "TXT", "v=DMARC1; p=none; rua=mailto:dmarc@reports.test"),
    ("us.test._report._dmarc.reports.test", "TXT", "v=DMARC1"),
    ("_smtp._tls.us.test", "TXT", "v=TLSRPTv1; rua=mailto:dmarc@reports.test"),
    ("_25._tcp.mx1.us.test", "TLSA", f"3 1 1 {DIGEST.hex()}"),
    ("_25._tcp.mx2.elsewhere.test", "TLSA", f"3 1 1 {DIGEST.hex()}"),
]


@pytest.mark.parametrize("wanted", WANTED, ids=[f"{name} {kind}" for name, kind, _ in WANTED])
def test_the_records(publication: Publication, wanted: tuple[str, str, str]) -> None:
    assert wanted in {(each.name, each.rdtype, each.value) for each in publication.records}


def test_each_record_says_why_on_one_line(publication: Publication) -> None:
    assert all(each.why and each.why.isprintable() for each in publication.records)


def test_tlsa_is_held_back_without_dnssec(publication: Publication) -> None:
    held = {each.name: each.held_back for each in publication.records if each.rdtype == "TLSA"}
    assert held == {
        "_25._tcp.mx1.us.test": "",
        "_25._tcp.mx2.elsewhere.test": "the zone of mx2.elsewhere.test has no DNSSEC; sign it first",
    }


@pytest.mark.parametrize(
    ("stage", "spf", "mode"),
    [(Stage.NONE, "~all", "testing"), (Stage.QUARANTINE, "~all", "enforce"), (Stage.REJECT, "-all", "enforce")],
)
def test_the_ladder(choices: Choices, stage: Stage, spf: str, mode: str) -> None:
    at = Choices(domain=US, stage=stage, hosts=choices.hosts)
    found = {each.name: each.value for each in records(at) if each.rdtype == "TXT"}
    assert found["us.test"] == f"v=spf1 mx {spf}"
    read = DmarcRecord.parse(found["_dmarc.us.test"].encode())
    assert read is not None
    assert DmarcPolicy(stage.value).value in found["_dmarc.us.test"]
    assert f"mode: {mode}\r\n" in policy_file(at)


def test_another_policy_has_another_id(choices: Choices) -> None:
    ids = {
        each.value
        for stage in Stage
        for each in records(Choices(domain=US, stage=stage, hosts=choices.hosts))
        if each.name == "_mta-sts.us.test"
    }
    assert len(ids) == 2
    # RFC 8461 §3.1: 1 to 32 letters and digits.
    assert all(re.fullmatch(r"v=STSv1; id=[A-Za-z0-9]{1,32}", each) for each in ids)


def test_without_a_mail_host_there_is_nothing_to_say_of_one() -> None:
    bare = Choices(domain=US)
    assert {each.name for each in records(bare)} == {"us.test", "_dmarc.us.test", "_smtp._tls.us.test"}
    assert policy_file(bare) == ""


def test_reports_within_the_domain_need_no_leave() -> None:
    found = records(Choices(domain=US, reports="dmarc@sub.us.test"))
    assert not [each for each in found if each.zone]


# Read back


def test_a_zone_file_is_read_back_by_dnspython(publication: Publication) -> None:
    text = FORMATS["zone"](publication)
    head = "@ IN SOA ns h 1 2 3 4 5\n@ IN NS ns\n"
    zone = dns.zone.from_text(head + text, origin="us.test.", relativize=False, check_origin=False)
    found = {
        (str(name), dns.rdatatype.to_text(data.rdtype), data.to_text())
        for name, _, data in zone.iterate_rdatas()
        if data.rdtype not in (dns.rdatatype.SOA, dns.rdatatype.NS)
    }
    assert found == own(publication)
    assert "; not yet: the zone of mx2.elsewhere.test has no DNSSEC" in text
    assert ";   mode: testing" in text


def test_json_is_read_back(publication: Publication) -> None:
    found = json.loads(FORMATS["json"](publication))
    assert {
        (f"{each['name']}.", each["type"], dns.rdata.from_text("IN", each["type"], each["rdata"]).to_text())
        for each in found["records"]
        if each["held_back"] is None and each["zone"] == "us.test"
    } == own(publication)
    for each in found["records"]:
        assert list(each) == ["name", "type", "ttl", "value", "rdata", "zone", "why", "held_back"]
    assert found["mta_sts_policy"]["text"] == publication.policy_file


def test_the_lines_for_a_web_form_are_whole(publication: Publication) -> None:
    text = FORMATS["web"](publication)
    found = set(re.findall(r"  zone:  (\S+)\n  name:  (\S+)\n  type:  (\S+)\n  value: (.+)\n", text))
    assert len(found) == len(publication.records)
    assert ("us.test", "@", "TXT", "v=spf1 mx ip4:192.0.2.0/24 ~all") in found
    assert ("reports.test", "us.test._report._dmarc", "TXT", "v=DMARC1") in found
    assert ("us.test", "mx2.elsewhere.test.", "TLSA") not in {each[:3] for each in found}
    key = next(each.value for each in publication.records if each.name == "r4._domainkey.us.test")
    assert len(key) > 700
    assert ("us.test", "r4._domainkey", "TXT", key) in found


def test_octodns_reads_its_yaml(publication: Publication, tmp_path: Path) -> None:
    (tmp_path / "us.test.yaml").write_text(FORMATS["octodns"](publication))
    zone = Zone("us.test.", [])
    YamlProvider("test", str(tmp_path), escaped_semicolons=True).populate(zone)
    found = set()
    for record in zone.records:
        values = record.values
        for value in values:
            if record._type == "TXT":
                text = quoted_strings(value.replace("\\;", ";").encode())
            elif record._type == "MX":
                text = f"{value.preference} {value.exchange}"
            elif record._type == "TLSA":
                text = (
                    f"{value.certificate_usage} {value.selector} {value.matching_type}"
                    f" {value.certificate_association_data}"
                )
            else:
                text = f"{value.algorithm} {value.fingerprint_type} {value.fingerprint}"
            data = dns.rdata.from_text("IN", record._type, text).to_text()
            found.add((record.fqdn, record._type, data))
    assert found == own(publication)


@pytest.mark.parametrize(
    ("selectors", "hosts"),
    [
        (("mg202611r2", "mg202611e2", "mg202611r", "mg202611e"), ("mx",)),
        (("mail", "20261101", "m0", "0m", "m"), ("mx10", "mx1", "mx2", "mx02", "10.mx", "9.mx", "mx-3", "mx")),
    ],
)
def test_octodns_takes_the_order_of_the_names(
    choices: Choices, tmp_path: Path, selectors: tuple[str, ...], hosts: tuple[str, ...]
) -> None:
    keys = [replace(choices.keys[0], selector=name, name=f"{name}._domainkey.us.test") for name in selectors]
    servers = [MailHost(name=Domain.parse(f"{name}.us.test"), key_digests=[DIGEST], is_signed=True) for name in hosts]
    found = records(replace(choices, keys=keys, hosts=servers))
    (tmp_path / "us.test.yaml").write_text(FORMATS["octodns"](Publication(US, found, "", "")))
    zone = Zone("us.test.", [])
    YamlProvider("test", str(tmp_path), escaped_semicolons=True).populate(zone)
    names = {record.fqdn for record in zone.records}
    assert names >= {f"{name}._domainkey.us.test." for name in selectors}
    assert names >= {f"_25._tcp.{name}.us.test." for name in hosts}


HEAD = """\
$TTL 300
@ IN SOA ns1.us.test. h.us.test. 1 60 60 60 60
@ IN NS ns1.us.test.
ns1 IN A 127.0.0.61
mx1 IN A 192.0.2.1
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Bind]:
    other = '@ IN TXT "v=spf1 -all"\n@ IN TXT "site-verification=1"\n_dmarc IN TXT "v=DMARC1; p=reject"\n'
    with Bind({"us.test": HEAD + other}) as found:
        yield found


def test_bind_takes_what_nsupdate_sends(publication: Publication, server: Bind) -> None:
    text = FORMATS["nsupdate"](publication)
    server.update(text)
    server.update(text)  # again, without harm
    found = set()
    for name, rdtype in {(each.name, each.rdtype) for each in publication.records if not each.zone}:
        reply = dns.query.tcp(dns.message.make_query(f"{name}.", rdtype), HOST, port=server.port, timeout=5)
        for rrset in reply.answer:
            found |= {(f"{name}.", rdtype, data.to_text()) for data in rrset}
    # What others have at the domain itself stays, also a second SPF record: the note says so.
    there = {("us.test.", "TXT", '"v=spf1 -all"'), ("us.test.", "TXT", '"site-verification=1"')}
    assert found == own(publication) | there


def test_an_update_keeps_the_tlsa_in_use(choices: Choices, server: Bind) -> None:
    """RFC 7671 §8.1: it goes when no server presents its key any more."""
    in_use, coming = bytes(32), bytes([1] * 32)
    texts = []
    for digest in (in_use, coming):
        made = replace(choices, hosts=[MailHost(name=MX1, key_digests=[digest], is_signed=True)])
        texts.append(FORMATS["nsupdate"](Publication(US, records(made), "", "")))
        server.update(texts[-1])
    reply = dns.query.tcp(dns.message.make_query("_25._tcp.mx1.us.test.", "TLSA"), HOST, port=server.port, timeout=5)
    found = {data.to_text() for rrset in reply.answer for data in rrset}
    assert {f"3 1 1 {in_use.hex()}", f"3 1 1 {coming.hex()}"} <= found


# Zones

ELSEWHERE = Choices(
    domain=Domain.parse("mail.us.test"),
    zone="us.test",
    hosts=[
        MailHost(name=MX1, key_digests=[DIGEST], is_signed=True),
        MailHost(name=MX2, key_digests=[DIGEST], is_signed=True),
    ],
    host_keys=[(Domain.parse("h.elsewhere.test"), "4 2 " + "ab" * 32)],
    reports="d@sub.reports.test",
    zones={MX2: "elsewhere.test", "h.elsewhere.test": "elsewhere.test", "sub.reports.test": "reports.test"},
)
THERE = {
    "_25._tcp.mx2.elsewhere.test": "elsewhere.test",
    "h.elsewhere.test": "elsewhere.test",
    "mail.us.test._report._dmarc.sub.reports.test": "reports.test",
}


@pytest.fixture(scope="module")
def below() -> Publication:
    return Publication(ELSEWHERE.domain, records(ELSEWHERE), "", "", "us.test")


def test_each_record_names_its_zone(below: Publication) -> None:
    found = {each["name"]: each["zone"] for each in json.loads(FORMATS["json"](below))["records"]}
    assert {name: zone for name, zone in found.items() if zone != "us.test"} == THERE
    web = FORMATS["web"](below)
    assert "  zone:  elsewhere.test\n  name:  _25._tcp.mx2\n" in web
    assert "  zone:  reports.test\n  name:  mail.us.test._report._dmarc.sub\n" in web
    assert "  zone:  us.test\n  name:  _25._tcp.mx1\n" in web
    assert "  zone:  us.test\n  name:  _dmarc.mail\n" in web


@pytest.mark.parametrize(("form", "mark"), [("nsupdate", ";"), ("octodns", "#")])
def test_what_a_form_leaves_out_it_says(below: Publication, form: str, mark: str) -> None:
    lines = FORMATS[form](below).splitlines()
    for name, zone in THERE.items():
        named = [line for line in lines if name in line and "left out" in line]
        assert len(named) == 1
        assert named[0].startswith(f"{mark} left out: {name} ")
        assert named[0].endswith(f"which belongs in the zone {zone}")
    assert not [line for line in lines if any(name in line for name in THERE) and not line.startswith(mark)]
    held = replace(ELSEWHERE, hosts=[MailHost(name=MX1, key_digests=[DIGEST], is_signed=None)])
    text = FORMATS[form](Publication(ELSEWHERE.domain, records(held), "", "", "us.test"))
    assert f"{mark} left out: _25._tcp.mx1.us.test TLSA: not yet: it cannot be told" in text


def test_octodns_reads_names_below_the_zone(below: Publication, tmp_path: Path) -> None:
    (tmp_path / "us.test.yaml").write_text(FORMATS["octodns"](below))
    zone = Zone("us.test.", [])
    YamlProvider("test", str(tmp_path), escaped_semicolons=True).populate(zone)
    names = {(record.fqdn, record._type) for record in zone.records}
    assert ("mail.us.test.", "MX") in names
    assert ("_dmarc.mail.us.test.", "TXT") in names
    assert ("_25._tcp.mx1.us.test.", "TLSA") in names
    assert len(names) == len({(each.name, each.rdtype) for each in below.records if not each.zone})


# Fingerprints


def test_the_digest_is_of_the_public_key() -> None:
    first, second = made_certificate(None, "mx1.us.test"), made_certificate(None, "other.test", subject="another")
    pems = [each.certificate.public_bytes(Encoding.PEM) for each in (first, second)]
    assert certificate_key_digest(pems[0]) == sha256(first.spki).digest()
    assert certificate_key_digest(pems[0] + pems[1]) == sha256(first.spki).digest()


@pytest.mark.parametrize(
    "octets", [b"", b"\0" * 100, b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_certificate(octets: bytes) -> None:
    with pytest.raises(KeyFileError, match="no certificate"):
        certificate_key_digest(octets)


def test_sshfp_is_that_of_ssh_keygen() -> None:
    # ssh-keygen -r, of OpenSSH 9.2
    assert sshfp(SSH) == "4 2 66402c9468c58941dd19ffd650bf2b42f9226f83d3bd06ad515d0e5104a77020"


@pytest.mark.parametrize("line", ["", "ssh-ed25519", "ssh-dss AAAA", "ssh-rsa ===", "# comment"])
def test_what_is_no_ssh_key(line: str) -> None:
    assert sshfp(line) is None


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (b"", '""'),
        (b'a"b\\c', '"a\\"b\\\\c"'),
        (b"\xff\n", '"\\255\\010"'),
        (b"x" * 256, f'"{"x" * 255}" "x"'),
    ],
)
def test_strings_are_cut_and_escaped(octets: bytes, text: str) -> None:
    assert quoted_strings(octets) == text
    data = dns.rdata.from_text("IN", "TXT", text)
    assert b"".join(data.strings) == octets  # type: ignore[attr-defined]  # dnspython's types do not tell


# The comparison by itself

PLAIN_KEY = Record(name="a.us.test", rdtype="TXT", value="v=DKIM1; k=rsa; p=AAAA", why="w")
SPF = Record(name="us.test", rdtype="TXT", value="v=spf1 mx ~all", why="w", replaces=False)
KEY = Record(name="s._domainkey.us.test", rdtype="TXT", value="v=DKIM1; k=rsa; p=AAAABBBB", why="w")
OTHER_KEY = Record(name="s._domainkey.us.test", rdtype="TXT", value="v=DKIM1; k=ed25519; p=AAAABBA=", why="w")
POLICY = Record(name="_dmarc.us.test", rdtype="TXT", value="v=DMARC1; p=none; rua=mailto:a@us.test", why="w")
TLSA = Record(name="t.us.test", rdtype="TLSA", value="3 1 1 " + "ab" * 32, why="w")
CASES = [
    ("same", PLAIN_KEY, ["v=DKIM1; k=rsa; p=AAAA"], [State.PRESENT]),
    ("white space", PLAIN_KEY, ["v=DKIM1;k=rsa ; p= AAAA ;"], [State.PRESENT]),
    ("case counts", PLAIN_KEY, ["v=DKIM1; k=rsa; p=aaaa"], [State.DIFFERENT]),
    ("white space in base64", KEY, ["v=DKIM1; k=rsa; p=AAAA BBBB"], [State.PRESENT]),
    ("base64 without padding", OTHER_KEY, ["v=DKIM1; k=ed25519; p=AAAABBA"], [State.PRESENT]),
    ("the default type", KEY, ["v=DKIM1; p=AAAABBBB"], [State.PRESENT]),
    ("without version", KEY, ["k=rsa; p=AAAABBBB"], [State.PRESENT]),
    ("another type", KEY, ["v=DKIM1; k=ed25519; p=AAAABBBB"], [State.DIFFERENT]),
    ("a version that comes late", KEY, ["k=rsa; v=DKIM1; p=AAAABBBB"], [State.DIFFERENT]),
    ("a restriction", KEY, ["v=DKIM1; k=rsa; p=AAAABBBB; t=s"], [State.DIFFERENT]),
    ("another text beside a key", KEY, ["v=DKIM1; p=AAAABBBB", "x"], [State.PRESENT, State.EXTRA]),
    ("a tag twice", KEY, ["v=DKIM1; p=AAAABBBB; p=AAAABBBB"], [State.DIFFERENT]),
    ("words in capitals", POLICY, ["v=DMARC1;p=NONE;rua=mailto:a@us.test"], [State.PRESENT]),
    ("other order", POLICY, ["v=DMARC1;rua=mailto:a@us.test;p=none"], [State.PRESENT]),
    ("an address in capitals", POLICY, ["v=DMARC1;p=none;rua=mailto:A@us.test"], [State.DIFFERENT]),
    ("a version in other letters", POLICY, ["v=dmarc1;p=none;rua=mailto:a@us.test"], [State.DIFFERENT]),
    ("a foreign text", POLICY, ["v=DMARC1; p=none; rua=mailto:a@us.test", "g=1"], [State.PRESENT, State.BESIDE]),
    ("only a foreign text", POLICY, ["g=1"], [State.MISSING, State.BESIDE]),
    ("nothing", PLAIN_KEY, [], [State.MISSING]),
    ("one more", PLAIN_KEY, ["v=DKIM1; k=rsa; p=AAAA", "other"], [State.PRESENT, State.EXTRA]),
    ("twice", PLAIN_KEY, ["v=DKIM1; k=rsa; p=AAAA", "v=DKIM1;k=rsa;p=AAAA"], [State.PRESENT, State.EXTRA]),
    ("other texts at the domain", SPF, ["v=spf1 mx ~all", "site=1"], [State.PRESENT]),
    ("only other texts", SPF, ["site=1"], [State.MISSING]),
    ("another SPF", SPF, ["v=spf1 -all"], [State.DIFFERENT]),
    ("two SPF", SPF, ["v=spf1 mx ~all", "V=SPF1 -all"], [State.PRESENT, State.EXTRA]),
    ("TLSA in other letters", TLSA, ["3 1 1 " + "AB" * 32], [State.PRESENT]),
    ("a TLSA of another kind", TLSA, ["3 1 1 " + "ab" * 32, "0 0 1 " + "cd" * 32], [State.PRESENT, State.EXTRA]),
    ("another TLSA beside it", TLSA, ["3 1 1 " + "ab" * 32, "3 1 1 " + "cd" * 32], [State.PRESENT, State.BESIDE]),
]


@pytest.mark.parametrize(("record", "there", "expected"), [row[1:] for row in CASES], ids=[row[0] for row in CASES])
def test_the_comparison(record: Record, there: list[str], expected: list[State]) -> None:
    live = {(record.name, record.rdtype): {"ns": Found(tuple(there))}}
    assert [each.state for each in compare([record], live, normal=normal_rdata)] == expected


@pytest.mark.parametrize(("states", "code"), [([State.PRESENT, State.BESIDE], 0), ([State.BESIDE, State.BROKEN], 75)])
def test_what_does_no_harm_is_no_failure(states: list[State], code: int) -> None:
    assert exit_code([Comparison(state, "a.test", "TXT", "ns") for state in states]) == code


def test_a_fault_is_neither_missing_nor_present() -> None:
    live = {(PLAIN_KEY.name, "TXT"): {"ns": Found(fault="no answer: timeout")}}
    assert compare([PLAIN_KEY], live, normal=normal_rdata) == [
        Comparison(State.BROKEN, PLAIN_KEY.name, "TXT", "ns", PLAIN_KEY.value, detail="no answer: timeout")
    ]


def test_what_is_held_back_is_not_compared() -> None:
    held = Record(name="t.us.test", rdtype="TLSA", value="3 1 1 " + "ab" * 32, why="w", held_back="no DNSSEC")
    assert compare([held], {("t.us.test", "TLSA"): {"ns": Found()}}, normal=normal_rdata) == []
