"""The records of a domain and the policy file of MTA-STS, from an administrator's choices.

RFC 7208 (SPF), RFC 6376 §3.6 (DKIM), RFC 9989 §4.7 (DMARC), RFC 9990 §4 (reports to another domain), RFC 7672 §3.1
(TLSA), RFC 8461 §3 (MTA-STS), RFC 8460 §3 (TLSRPT), RFC 4255 (SSHFP). Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from urllib.parse import quote

from mailguard.dane.destination import SMTP_PORT
from mailguard.domain import is_equal_or_below
from mailguard.records.choices import Choices, MailHost, Stage
from mailguard.records.record import Record

__all__ = ["policy_address", "policy_file", "records"]

# RFC 8461 §3.2: long enough to outlast an attacker; a week while it is being tried out.
TESTING_MAX_AGE_S = 604_800
ENFORCED_MAX_AGE_S = 2_592_000
# RFC 6068 §2: of what a local part may have, that which needs no encoding in a mailto URI.
_AS_THEY_ARE = "$'*+-._~"

_ASKS = {
    Stage.NONE: "only to report (p=none)",
    Stage.QUARANTINE: "to put mail that fails into the spam folder",
    Stage.REJECT: "to refuse mail that fails",
}


def records(choices: Choices) -> tuple[Record, ...]:
    """All that is to be published for the domain, in the order in which one does it."""
    return (
        *_mx(choices),
        *_spf(choices),
        *_dkim(choices),
        *_dmarc(choices),
        *_tls_reports(choices),
        *_mta_sts(choices),
        *_tlsa(choices),
        *_ssh(choices),
    )


def policy_file(choices: Choices) -> str:
    """What https://mta-sts.DOMAIN/.well-known/mta-sts.txt is to serve (RFC 8461 §3.2); empty without a mail host."""
    if not choices.hosts:
        return ""
    mode, age = ("testing", TESTING_MAX_AGE_S) if choices.stage is Stage.NONE else ("enforce", ENFORCED_MAX_AGE_S)
    hosts = [f"mx: {host.name}" for host in choices.hosts]
    return "\r\n".join(["version: STSv1", f"mode: {mode}", *hosts, f"max_age: {age}", ""])


def _mx(choices: Choices) -> Iterator[Record]:
    if not choices.takes_mail:
        # RFC 7505 §3.
        yield Record(name=choices.domain, rdtype="MX", value="0 .", why=f"{choices.domain} takes no mail (null MX)")
    for host in choices.hosts:
        value = f"{host.preference} {host.name}."
        yield Record(
            name=choices.domain, rdtype="MX", value=value, why=f"mail for {choices.domain} goes to {host.name}"
        )


def _spf(choices: Choices) -> Iterator[Record]:
    # RFC 7208 §8.5: softfail while it is tried out; who forwards mail breaks SPF, so DMARC is what refuses.
    last = "-all" if choices.stage is Stage.REJECT or not choices.senders else "~all"
    terms = " ".join(["v=spf1", *choices.senders, last])
    who = "who" if choices.senders else "nobody"
    why = f"SPF: {who} sends for {choices.domain}; a domain has one such record, so merge it with one that is there"
    # RFC 7208 §4.5: two are a permerror, for all mail of the domain.
    there = choices.published_spf
    is_beside = there and " ".join(there.split()) != terms
    held_back = f'"{there}" is there: write into that what it lacks, or put this in its place' if is_beside else ""
    yield Record(name=choices.domain, rdtype="TXT", value=terms, why=why, held_back=held_back, replaces=False)


def _dkim(choices: Choices) -> Iterator[Record]:
    zone = choices.zones.get(choices.delegable[0], "")
    for key in choices.keys:
        why = f"DKIM: the public half of the {key.algorithm} key {key.selector}, {key.bits} bits{key.note}"
        yield Record(name=key.name, rdtype="TXT", value=key.record.decode("ascii"), why=why, zone=zone)


def _dmarc(choices: Choices) -> Iterator[Record]:
    address = choices.report_address
    value = f"v=DMARC1; p={choices.stage.value}"
    why = f"DMARC: asks receivers {_ASKS[choices.stage]}"
    if address:
        value += f"; rua={_mailto(address)}"
        why += f", and to send daily reports to {address}"
    name = choices.delegable[1]
    yield Record(name=name, rdtype="TXT", value=value, why=why, zone=choices.zones.get(name, ""))
    other = address.rpartition("@")[2]
    if address and not is_equal_or_below(other, choices.domain):
        # RFC 9990 §4: without it, receivers send no reports there.
        yield Record(
            name=f"{choices.domain}._report._dmarc.{other}",
            rdtype="TXT",
            value="v=DMARC1",
            why=f"DMARC: {other} agrees to take the reports of {choices.domain}; it belongs in the zone of {other}",
            zone=choices.zone_of(f"{choices.domain}._report._dmarc.{other}", other),
        )


def _mailto(address: str) -> str:
    """RFC 6068 §2, and RFC 9989 §4.8, which wants "," and "!" encoded as well."""
    local, _, domain = address.rpartition("@")
    return f"mailto:{quote(local, safe=_AS_THEY_ARE)}@{domain}"


def _tls_reports(choices: Choices) -> Iterator[Record]:
    if not choices.takes_mail:
        return
    yield Record(
        name=f"_smtp._tls.{choices.domain}",
        rdtype="TXT",
        value=f"v=TLSRPTv1; rua={_mailto(choices.report_address)}",
        why="TLSRPT: asks senders to report when they could not use TLS to reach you",
    )


def _mta_sts(choices: Choices) -> Iterator[Record]:
    policy = policy_file(choices)
    if not policy:
        return
    yield Record(
        name=f"_mta-sts.{choices.domain}",
        rdtype="TXT",
        value=f"v=STSv1; id={sha256(policy.encode('ascii')).hexdigest()[:20]}",
        why=f"MTA-STS: a new id makes senders fetch the policy; first serve it at {policy_address(choices)}",
    )


def policy_address(choices: Choices) -> str:
    """RFC 8461 §3.3: the one place where senders look for the policy file."""
    return f"https://mta-sts.{choices.domain}/.well-known/mta-sts.txt"


def _tlsa(choices: Choices) -> Iterator[Record]:
    for host in choices.hosts:
        name = f"_{SMTP_PORT}._tcp.{host.name}"
        for digest in dict.fromkeys(host.key_digests):
            yield Record(
                name=name,
                rdtype="TLSA",
                value=f"3 1 1 {digest.hex()}",
                why=f"DANE: the key of a certificate of {host.name}; publish the next one's before you change it",
                held_back=_without_dnssec(host),
                zone=choices.zone_of(name, host.name),
                # RFC 7671 §8.1: the record of the certificate in use must stay until the next one has taken over.
                replaces=False,
            )


def _without_dnssec(host: MailHost) -> str:
    # RFC 7672 §2.1.1: without DNSSEC nobody reads it.
    if host.is_signed is None:
        return (
            f"it cannot be told whether the zone of {host.name} has DNSSEC: ask through a resolver that validates,"
            " on loopback or in trust_ad under [dns]"
        )
    return "" if host.is_signed else f"the zone of {host.name} has no DNSSEC; sign it first"


def _ssh(choices: Choices) -> Iterator[Record]:
    for name, value in choices.host_keys:
        why = f"SSH: the fingerprint of a host key of {name}"
        yield Record(name=name, rdtype="SSHFP", value=value, why=why, zone=choices.zone_of(name, name))
