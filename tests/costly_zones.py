"""Zones that cost a validating resolver much work, as master files, with the trust anchors for them.

`iterated`: names that do not exist are denied by NSEC3 with many iterations of its hash (CVE-2023-50868). `keytrap`:
many keys with one key tag, and many signatures that name it, so that each has to be tried with each (CVE-2023-50387).
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dns.dnssec
import dns.name
import dns.rdataset
import dns.rdatatype
import dns.rrset
import dns.zone
from cryptography.hazmat.primitives.asymmetric import ec
from dns.dnssectypes import Algorithm, DSDigest, NSEC3Hash
from dns.rdtypes.ANY.DNSKEY import DNSKEY

__all__ = ["CostlyZone", "iterated", "keytrap"]

TTL_S = 300
HEAD = f"@ {TTL_S} IN SOA ns h 1 2 3 4 60\n@ {TTL_S} IN NS ns\nns {TTL_S} IN A 192.0.2.1\n"
ZONE_KEY = 0x0100
REVOKED = 0x0080
# Of an ECDSA signature with P-256 (RFC 6605 §4).
SIGNATURE_OCTETS = 64


@dataclass(frozen=True)
class CostlyZone:
    """A zone for nsd, and the anchor as `trust-anchor` of unbound has it."""

    text: str
    anchor: str


class _Signer:
    def __init__(self, origin: dns.name.Name) -> None:
        self._private = ec.generate_private_key(ec.SECP256R1())
        self.dnskey = dns.dnssec.make_dnskey(self._private.public_key(), Algorithm.ECDSAP256SHA256, flags=257)
        self._origin = origin
        now = datetime.now(UTC)
        self._times = (now - timedelta(days=1), now + timedelta(days=7))

    def signed(self, owner: dns.name.Name, rdataset: dns.rdataset.Rdataset) -> Iterator[str]:
        """The records and their signature, as lines."""
        rrset = dns.rrset.from_rdata_list(owner, TTL_S, list(rdataset))
        signature = dns.dnssec.sign(
            rrset,
            self._private,
            self._origin,
            self.dnskey,
            inception=self._times[0],
            expiration=self._times[1],
            verify=False,
        )
        yield rrset.to_text()
        yield f"{owner} {TTL_S} IN RRSIG {signature.to_text()}"

    @property
    def anchor(self) -> str:
        return f"{self._origin} IN DS {dns.dnssec.make_ds(self._origin, self.dnskey, DSDigest.SHA256).to_text()}"


def iterated(origin: str, records: str, *, iterations: int) -> CostlyZone:
    """The zone signed with NSEC3 (RFC 5155). `records` are as in its master file, without empty non-terminals."""
    apex = dns.name.from_text(origin)
    signer = _Signer(apex)
    parameters = f"1 0 {iterations} -"
    zone = dns.zone.from_text(f"$TTL {TTL_S}\n{HEAD}{records}", apex, relativize=False)
    _add(zone, apex, "DNSKEY", signer.dnskey.to_text())
    _add(zone, apex, "NSEC3PARAM", parameters)
    lines: list[str] = []
    denied = {}
    for owner, node in zone.nodes.items():
        types = {dns.rdatatype.to_text(each.rdtype) for each in node.rdatasets} | {"RRSIG"}
        denied[dns.dnssec.nsec3_hash(owner, None, iterations, NSEC3Hash.SHA1)] = types
        for rdataset in node.rdatasets:
            lines += signer.signed(owner, rdataset)
    hashes = sorted(denied)
    for number, each in enumerate(hashes):
        following = hashes[(number + 1) % len(hashes)]
        text = f"{parameters} {following} {' '.join(sorted(denied[each]))}"
        rdataset = dns.rdataset.from_text("IN", "NSEC3", TTL_S, text)
        lines += signer.signed(dns.name.from_text(each, apex), rdataset)
    return CostlyZone("\n".join([*lines, ""]), signer.anchor)


def keytrap(origin: str, records: str, *, keys: int, signatures: int) -> CostlyZone:
    """The zone with `keys` keys of one tag; each of its records has `signatures` signatures with it, all wrong.

    Its keys alone are rightly signed, so that all of them are to be tried. `records` as for `iterated`.
    """
    apex = dns.name.from_text(origin)
    signer = _Signer(apex)
    tag = dns.dnssec.key_id(signer.dnskey)
    dnskeys = dns.rdataset.from_rdata_list(TTL_S, [signer.dnskey, *(_key_with_tag(tag) for _ in range(keys - 1))])
    lines = list(signer.signed(apex, dnskeys))
    zone = dns.zone.from_text(f"$TTL {TTL_S}\n{HEAD}{records}", apex, relativize=False)
    for owner, node in zone.nodes.items():
        for rdataset in node.rdatasets:
            records_of, signed = signer.signed(owner, rdataset)
            lines.append(records_of)
            # The last field is the signature.
            stem = signed.rpartition(" RRSIG ")[0] + " RRSIG " + " ".join(signed.rpartition(" RRSIG ")[2].split()[:8])
            lines += [f"{stem} {_noise()}" for _ in range(signatures)]
    return CostlyZone("\n".join([*lines, ""]), signer.anchor)


def _noise() -> str:
    return base64.b64encode(secrets.token_bytes(SIGNATURE_OCTETS)).decode("ascii")


def _key_with_tag(tag: int) -> DNSKEY:
    """A key of the curve, so that it is tried in earnest; its flags that mean nothing make its tag."""
    while True:
        public = ec.generate_private_key(ec.SECP256R1()).public_key()
        made = dns.dnssec.make_dnskey(public, Algorithm.ECDSAP256SHA256, flags=0)
        # RFC 4034 appendix B: the sum of its words, in which the flags are one, and of what is carried.
        rest = dns.dnssec.key_id(made)
        for flags in ((tag - rest) % 0x10000, (tag - rest - 1) % 0x10000):
            key = made.replace(flags=flags)
            assert isinstance(key, DNSKEY)
            if flags & ZONE_KEY and not flags & REVOKED and dns.dnssec.key_id(key) == tag:
                return key


def _add(zone: dns.zone.Zone, owner: dns.name.Name, rdtype: str, text: str) -> None:
    zone.replace_rdataset(owner, dns.rdataset.from_text("IN", rdtype, TTL_S, text))
