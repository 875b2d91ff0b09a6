"""Evidence as a plain message gives it, for the tests of Authentication-Results, and the clauses written of it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from authresults_reader import Clause, read_strictly
from mailguard.authresults import build
from mailguard.dkim.result import DkimReason, DkimResult, DkimStatus
from mailguard.dmarc.record import DmarcPolicy
from mailguard.dmarc.result import DmarcReason, DmarcStatus, DmarcVerdict
from mailguard.domain import Domain
from mailguard.envelope import Envelope
from mailguard.evidence import Evidence
from mailguard.iprev import IprevResult, IprevStatus
from mailguard.spf.result import SpfIdentity, SpfReason, SpfResult, SpfStatus

US = "mx.us.test"
BANK = Domain.parse("bank.test")
EVIL = Domain.parse("evil.test")
ENVELOPE = Envelope(client_ip=ip_address("192.0.2.1"), helo=b"mail.bank.test", mail_from=b"ceo@bank.test")
NOTHING = Evidence(envelope=ENVELOPE)

DKIM_PASS = DkimResult(
    status=DkimStatus.PASS,
    reason=DkimReason.VERIFIED,
    detail="the signature verifies",
    domain=BANK,
    selector="s1",
    identity="@bank.test",
    algorithm="rsa-sha256",
    key_bits=2048,
    signature_prefix="abcd+/12",
)
DKIM_PROPERTIES = [
    ("header.d", "bank.test"),
    ("header.i", "@bank.test"),
    ("header.a", "rsa-sha256"),
    ("header.s", "s1"),
    ("header.b", "abcd+/12"),
]
SPF_PASS = SpfResult(
    status=SpfStatus.PASS,
    reason=SpfReason.MATCH,
    detail="ip4:192.0.2.1 matches",
    identity=SpfIdentity.MAIL_FROM,
    domain=BANK,
)
HELO_PASS = replace(SPF_PASS, identity=SpfIdentity.HELO, domain=EVIL)
IPREV_PASS = IprevResult(
    IprevStatus.PASS, "the name leads back", ip_address("192.0.2.1"), (Domain.parse("mail.bank.test"),)
)
PASS = DmarcVerdict(
    status=DmarcStatus.PASS,
    reason=DmarcReason.ALIGNED,
    detail="SPF passes for the author domain",
    author_domain=BANK,
    policy=DmarcPolicy.REJECT,
)
FAIL = replace(PASS, status=DmarcStatus.FAIL, reason=DmarcReason.NOTHING_PASSED, detail="nothing passes")
FROM_BANK = replace(NOTHING, author_domains=(BANK,))


def clauses_of(
    evidence: Evidence, verdict: DmarcVerdict | None = None, *, override: str = "", shows_login: bool = False
) -> list[Clause]:
    authserv_id, clauses = read_strictly(
        build(US, evidence, verdict, override=override, shows_login=shows_login).value
    )
    assert authserv_id == US
    return clauses


def clause_of(method: str, evidence: Evidence, verdict: DmarcVerdict | None = None, *, override: str = "") -> Clause:
    (clause,) = [one for one in clauses_of(evidence, verdict, override=override) if one.method == method]
    return clause
