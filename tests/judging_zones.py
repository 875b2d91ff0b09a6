"""The zones behind the tests of judging through the real Postfix: zone Z0 and, for each case of policy, a domain.

`ZONES` are records as a master file has them, for each origin, as `unbound_site.Unbound` wants them. A domain's name
says what it is for. Keys are those of zone0; `KEYS` holds the key of the selector s1 of each domain that signs.
"""

from __future__ import annotations

from collections.abc import Mapping

import zone0
from postfix_site import OUR_KEYS, text_record

__all__ = ["BOGUS", "CLIENTS", "FAILING", "KEYS", "LIST_CLIENT", "SIGNED", "ZONES", "domain_zone", "key", "signed_by"]

LIST_CLIENT = "203.0.113.25"

# The hosts from which the domains send. The attacker's, 198.51.100.66, is in no record but its own.
CLIENTS: Mapping[str, str] = {
    "bank.test": "192.0.2.10",
    "us.test": "192.0.2.20",
    "spf-only.test": "192.0.2.30",
    "strict.test": "192.0.2.31",
    "lists.test": LIST_CLIENT,
    "bogus.test": "192.0.2.40",
    "failing.test": "192.0.2.50",
    "no-policy.test": "192.0.2.51",
}

KEYS: Mapping[str, zone0.PrivateKey] = {
    "bank.test": zone0.kb(),
    "evil.test": zone0.ke(),
    "dkim-only.test": zone0.ed25519_key(20),
    "lists.test": zone0.ed25519_key(21),
    "bogus.test": zone0.ed25519_key(22),
    "bogus-key.test": zone0.ed25519_key(25),
    "no-key.test": zone0.ed25519_key(23),
    "no-key-none.test": zone0.ed25519_key(24),
}


def spf(domain: str, end: str = "-all") -> str:
    return f'"v=spf1 ip4:{CLIENTS[domain]} {end}"'


def key(private: zone0.PrivateKey) -> str:
    return text_record(zone0.key_record(private))


def domain_zone(*, spf_record: str = "", dmarc: str = "", private: zone0.PrivateKey | None = None) -> str:
    """The records that a domain usually has."""
    lines = [f"@ IN TXT {spf_record}"] * bool(spf_record) + [f'_dmarc IN TXT "{dmarc}"'] * bool(dmarc)
    if private is not None:
        lines.append(f"s1._domainkey IN TXT {key(private)}")
    return "\n".join([*lines, ""])


REJECT, QUARANTINE, NONE = "v=DMARC1; p=reject", "v=DMARC1; p=quarantine", "v=DMARC1; p=none"
EVIL_SPF = '"v=spf1 ip4:198.51.100.66 -all"'

ZONES: Mapping[str, str] = {
    # Z0 of the attack table.
    "bank.test.": domain_zone(spf_record=spf("bank.test"), dmarc=REJECT, private=zone0.kb()),
    "evil.test.": f"@ IN TXT {EVIL_SPF}\n* IN TXT {EVIL_SPF}\n" + domain_zone(private=zone0.ke()),
    "us.test.": domain_zone(spf_record=spf("us.test"))
    + "".join(f"{selector}._domainkey IN TXT {key(private)}\n" for selector, private in OUR_KEYS.items()),
    "other.test.": domain_zone(spf_record='"v=spf1 -all"'),
    # Who passes, and by what. The reverse path of spf-only.test is in a subdomain, as it often is.
    "spf-only.test.": domain_zone(dmarc=REJECT) + f"bounces IN TXT {spf('spf-only.test')}\n",
    "dkim-only.test.": domain_zone(dmarc=REJECT, private=KEYS["dkim-only.test"]),
    "strict.test.": domain_zone(dmarc=f"{REJECT}; aspf=s") + f"bounces IN TXT {spf('strict.test')}\n",
    # What else a policy can be.
    "quarantine.test.": domain_zone(spf_record='"v=spf1 -all"', dmarc=QUARANTINE),
    "none.test.": domain_zone(spf_record='"v=spf1 -all"', dmarc=NONE),
    "testing.test.": domain_zone(spf_record='"v=spf1 -all"', dmarc=f"{REJECT}; t=y"),
    "sub.test.": domain_zone(dmarc="v=DMARC1; p=none; sp=quarantine; np=reject") + 'exists IN TXT "here"\n',
    "two-records.test.": domain_zone(dmarc=REJECT) + f'_dmarc IN TXT "{NONE}"\n',
    "softfail.test.": domain_zone(spf_record='"v=spf1 ~all"'),
    # A mailing list.
    "lists.test.": domain_zone(spf_record=spf("lists.test"), private=KEYS["lists.test"]) + f"mx IN A {LIST_CLIENT}\n",
    "113.0.203.in-addr.arpa.": "25 IN PTR mx.lists.test.\n",
    # Zones whose signatures have expired.
    "bogus.test.": domain_zone(spf_record=spf("bogus.test"), dmarc=REJECT, private=KEYS["bogus.test"]),
    "_dmarc.bogus-policy.test.": f'@ IN TXT "{REJECT}"\n',
    "bogus-spf.test.": domain_zone(dmarc=REJECT),
    "bounces.bogus-spf.test.": domain_zone(spf_record='"v=spf1 -all"'),
    "bogus-key.test.": domain_zone(dmarc=REJECT),
    "_domainkey.bogus-key.test.": f"s1 IN TXT {key(KEYS['bogus-key.test'])}\n",
    # Zones that are answered SERVFAIL, see FAILING: all of failing.test, parts of the others.
    "failing.test.": domain_zone(spf_record=spf("failing.test"), dmarc=REJECT),
    "no-policy.test.": domain_zone(spf_record=spf("no-policy.test")),
    "no-key.test.": domain_zone(spf_record='"v=spf1 -all"', dmarc=REJECT),
    "no-key-none.test.": domain_zone(spf_record='"v=spf1 -all"', dmarc=NONE),
    "no-spf-none.test.": domain_zone(dmarc=NONE),
}
SIGNED = frozenset({"bank.test.", "spf-only.test.", "quarantine.test."})
BOGUS = frozenset(
    {"bogus.test.", "_dmarc.bogus-policy.test.", "bounces.bogus-spf.test.", "_domainkey.bogus-key.test."}
)
FAILING = frozenset(
    {
        "failing.test.",
        "_dmarc.no-policy.test.",
        "_domainkey.no-key.test.",
        "_domainkey.no-key-none.test.",
        "bounces.no-spf-none.test.",
    }
)


def signed_by(domain: str, raw: bytes) -> bytes:
    """`raw` with a signature of this domain's that verifies (where its key can be looked up)."""
    return zone0.sign_as(KEYS[domain], raw, d=domain)
