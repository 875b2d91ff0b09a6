"""What the Authentication-Results field is to say, said again in the plainest way, and two readers that find it said.

For any evidence, with hostile text wherever its types allow text.
"""

from __future__ import annotations

import re
from itertools import zip_longest

import authres

from authresults_evidence import US
from authresults_reader import Clause, read_strictly
from mailguard.dkim.result import DkimResult
from mailguard.dmarc.result import DmarcReason, DmarcVerdict
from mailguard.envelope import Envelope
from mailguard.evidence import Evidence
from mailguard.iprev import IprevStatus
from mailguard.spf.result import SpfIdentity, SpfResult, SpfStatus

MAX_LINE_OCTETS = 998  # RFC 5322 §2.1.1
MAX_FIELD_OCTETS = 65_535  # libmilter: MILTER_MAX_DATA_SIZE, with the field's name


def plain(text: str, forbidden: str, at_most: int) -> str:
    seen = "".join("?" if one in forbidden or not " " <= one <= "~" else "," if one == ";" else one for one in text)
    seen = " ".join(word for word in seen.split(" ") if word)
    if len(seen) > at_most:
        seen = seen[: at_most - 3].rstrip(" ") + "..."
    for claim in ("=pass", "= pass", "=?", "=("):
        at = seen.lower().find(claim)
        while at >= 0:
            seen = f"{seen[:at]}:{seen[at + 1 :]}"
            at = seen.lower().find(claim)
    return seen


def comment(*parts: str) -> str:
    return plain(", ".join(part for part in parts if part), '()"\\', 600)


def reason(text: str, *, wanted: bool = True) -> str | None:
    return (plain(text, '"\\', 600) or "unknown") if wanted and text else None


def needs_quotes(value: str) -> bool:
    specials = set('()<>@,;:\\"/[]?= ')
    if not specials & set(value):
        return False
    local, at, domain = value.rpartition("@")
    labels = domain.split(".")
    return not (
        at
        and len(labels) > 1
        and all(re.fullmatch("[A-Za-z0-9-]+", label) and label.strip("-") == label for label in labels)
        and (not local or all(atom and not set('()<>@,;:\\"[]/= ') & set(atom) for atom in local.split(".")))
    )


def properties(*pairs: tuple[str, str | None]) -> list[tuple[str, str]]:
    shown = [(name, plain(value, '="\\;()', 318) or "unknown") for name, value in pairs if value]
    return [(name, "unknown" if needs_quotes(value) else value) for name, value in shown[:-1]] + shown[-1:]


def meant_by_spf(result: SpfResult, envelope: Envelope) -> Clause:
    passed = result.status is SpfStatus.PASS
    is_helo = result.is_null_sender or result.identity is SpfIdentity.HELO
    raw = envelope.helo if is_helo else envelope.mail_from.split(b"@")[-1]
    value = result.domain or ("" if passed else raw.decode("utf-8", "replace"))
    name = "smtp.helo" if is_helo else "smtp.mailfrom"
    return Clause("spf", result.status.value, "", reason(result.detail, wanted=not passed), properties((name, value)))


def meant_by_signature(result: DkimResult, malformed: bool, *notes: str) -> Clause:
    status, detail = result.status.value, result.detail
    if status == "pass" and malformed:
        status, detail = "policy", "the signature verifies, but the message is malformed"
    identity = result.identity
    if identity is not None:
        local, _, domain = identity.rpartition("@")
        usable = len(local) < 65 and all(
            re.fullmatch(r"[\w!#$%&'*+?^`{|}~-]+", atom, re.A) for atom in local.split(".")
        )
        identity = f"{local}@{domain}" if usable else f"@{domain}"
    said = comment(
        f"{result.key_bits}-bit key" if result.key_bits else "", "testing" if result.testing else "", *notes
    )
    written = properties(
        ("header.d", result.domain),
        ("header.i", identity),
        ("header.a", result.algorithm),
        ("header.s", result.selector),
        ("header.b", (result.signature_prefix or "").split("=")[0]),
    )
    return Clause("dkim", status, said, reason(detail, wanted=status != "pass"), written)


def meant_by_verdict(evidence: Evidence, verdict: DmarcVerdict, override: str) -> Clause:
    status, detail = verdict.status.value, verdict.detail
    certain = len(evidence.author_domains) == 1 and evidence.author_domains[0] == verdict.author_domain
    if status == "pass" and not (certain and verdict.reason is not DmarcReason.SEVERAL_DOMAINS):
        status, detail = "permerror", "From does not name one domain that passes"
    policy = None if verdict.policy is None else verdict.policy.value
    testing = "t=y: one step weaker than published" if verdict.is_testing else ""
    written = properties(("header.from", verdict.author_domain), ("policy.dmarc", policy))
    return Clause("dmarc", status, comment(override, testing), reason(detail, wanted=status != "pass"), written)


def meant(evidence: Evidence, verdict: DmarcVerdict | None, override: str, shows_login: bool) -> list[Clause]:
    clauses, envelope, iprev = [], evidence.envelope, evidence.iprev
    malformed = evidence.malformed is not None
    if shows_login and envelope.login:
        clauses.append(
            Clause("auth", "pass", properties=properties(("smtp.auth", envelope.login.decode("utf-8", "replace"))))
        )
    if iprev is not None:
        why = reason(iprev.detail, wanted=iprev.status is not IprevStatus.PASS)
        address = properties(("policy.iprev", str(iprev.address)))
        clauses.append(Clause("iprev", iprev.status.value, comment(iprev.name or ""), why, address))
    clauses += [meant_by_spf(one, envelope) for one in (evidence.spf, evidence.helo_spf) if one is not None]
    ignored = evidence.ignored_signatures
    note = f"{ignored} further signatures were not verified" if ignored else ""
    last = len(evidence.dkim) - 1
    clauses += [
        meant_by_signature(one, malformed, note if index == last else "") for index, one in enumerate(evidence.dkim)
    ]
    if not evidence.dkim:
        clauses.append(Clause("dkim", "none", note))
    if malformed:
        why = reason(f"malformed message: {evidence.malformed_detail}")
        clauses.append(Clause("dmarc", "permerror", comment(override), why))
    elif verdict is not None:
        clauses.append(meant_by_verdict(evidence, verdict, override))
    return clauses


def check_octets(value: bytes) -> None:
    assert value.isascii()
    assert len(value) <= MAX_FIELD_OCTETS
    for line in value.split(b"\r\n"):
        assert not re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", line), line
        assert len(line) <= MAX_LINE_OCTETS
        words = re.sub(rb'"[^"]*"', b"quoted", line).split()
        assert len(line) <= 78 or len(words) == 1, line


def check_text(value: bytes, clauses: list[Clause]) -> None:
    """What a filter sees that looks for "dmarc=pass" and knows no grammar, and one that splits at each semicolon."""
    text = " ".join(value.decode("ascii").lower().split())
    assert not re.search(r"=\?[^? ]+\?[bq]\?[^? ]*\?=", text)  # an encoded word (RFC 2047), which some decode
    assert [each.split()[0] for each in text.split(";")[1:]] == [f"{one.method}={one.result}" for one in clauses]
    passes = [f"{one.method}=pass" for one in clauses if one.result == "pass"]
    assert re.findall(r"(?<!\.)\b(?:auth|iprev|spf|dkim|dmarc|arc)= ?pass", text) == passes


def check(value: bytes, expected: list[Clause]) -> None:
    check_octets(value)
    authserv_id, clauses = read_strictly(value)
    assert authserv_id == US
    for read, wanted in zip_longest(clauses, expected):
        assert read == wanted
    check_text(value, clauses)
    other = authres.AuthenticationResultsHeader.parse("Authentication-Results:" + value.decode("ascii"))
    assert other.authserv_id == US
    assert [
        (
            one.method,
            one.result,
            one.reason and str(one.reason),
            [(f"{p.type}.{p.name}", str(p.value)) for p in one.properties],
        )
        for one in other.results
    ] == [(one.method, one.result, one.reason, one.properties) for one in expected]
