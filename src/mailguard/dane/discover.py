"""What DANE demands of delivery to a destination: its hosts, their TLSA records, the names that certificates need.

RFC 7672 §2.2 (the four outcomes), RFC 7672 §2.2.1 (MX), RFC 7672 §2.2.2 (addresses first, aliases), RFC 7672 §2.2.3
(base domains), RFC 7672 §3.2.2 (reference identifiers). A look-up that fails never leads to less than one that
succeeds: its host is skipped, or delivery is deferred. Left out: certificates (verify.py), and which of the hosts is
tried. Pure: a function of `Answers`, whose DNSSEC status a trusted resolver tells; safe to share between threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from typing import NamedTuple

from mailguard.dane.destination import Destination, DestinationKind, is_address
from mailguard.dane.record import TlsaRecords, read_records
from mailguard.dane.result import DanePolicy, DaneStatus, HostOutcome, HostPolicy, HostReason
from mailguard.dns.answers import Answers, Unanswered
from mailguard.dns.question import MX, Answer, Dnssec, Question, RecordType, Status
from mailguard.domain import MAX_DOMAIN_CHARS

__all__ = ["MAX_HOSTS", "MAX_RRSET", "InsecureMx", "discover"]

# The largest senders and receivers have about ten. Each costs three look-ups, and its owner chooses where they go.
MAX_HOSTS = 32
# RFC 7671 §8.1: a roll-over has a handful. A message has room for thousands, which would have to be sorted.
MAX_RRSET = 256

_ReferenceIds = Callable[[str], Iterable[str]]


class InsecureMx(Enum):
    """What becomes of hosts from MX records without DNSSEC: both are permitted (RFC 7672 §2.2.1)."""

    MAY = "may"
    """DANE asks for nothing: who can forge the MX record can name a host with TLSA records of his own."""
    DANE = "dane"
    """Their TLSA records are heeded all the same, which helps where only the provider's zone is signed.

    That is what Postfix does unless `smtp_tls_dane_insecure_mx_policy` says otherwise.
    """


def discover(destination: Destination, answers: Answers, *, insecure_mx: InsecureMx = InsecureMx.MAY) -> DanePolicy:
    """What DANE demands of delivery to `destination`. Raises Unanswered while an answer is missing."""
    match destination.kind:
        case DestinationKind.ADDRESS:
            return _policy(destination, DaneStatus.NOT_APPLICABLE, "the destination is an address")
        case DestinationKind.HOST:
            hosts = _hosts([(None, destination.name)], destination, answers, _own_names(destination))
            return _policy(destination, DaneStatus.HOSTS, "the destination is a host", hosts=hosts)
        case DestinationKind.DOMAIN:
            return _by_mx(destination, answers, insecure_mx)


def _by_mx(destination: Destination, answers: Answers, insecure_mx: InsecureMx) -> DanePolicy:
    answer = answers.get(Question(destination.name, RecordType.MX))
    dnssec = answer.dnssec
    if _is_lookup_error(answer):
        return _policy(destination, DaneStatus.DEFER, f"the MX records are not known: {_failure(answer)}", answer)
    if answer.status is Status.NXDOMAIN:
        return _policy(destination, DaneStatus.NO_DOMAIN, f"the domain does not exist ({dnssec.value})", answer)
    if answer.status is Status.NODATA:
        # RFC 5321 §5.1: the domain is its own host. Nothing leads elsewhere, so that nobody can forge where to.
        hosts = _hosts([(None, destination.name)], destination, answers, _own_names(destination))
        return _policy(destination, DaneStatus.HOSTS, "there are no MX records", answer, hosts)
    exchanges = _exchanges(answer)
    if not exchanges:
        is_null = any(not mx.exchange for mx in answer.exchanges())
        status = DaneStatus.NO_MAIL if is_null else DaneStatus.DEFER
        return _policy(destination, status, "the domain takes no mail" if is_null else "no MX record is one", answer)
    chosen, left_out = exchanges[:MAX_HOSTS], len(exchanges[MAX_HOSTS:])
    counted = f"{len(exchanges)} host{'s' if len(exchanges) > 1 else ''}"
    detail = f"{counted}, MX records {dnssec.value}"
    if dnssec is not Dnssec.SECURE and insecure_mx is InsecureMx.MAY:
        hosts = tuple(
            HostPolicy(
                name=mx.exchange,
                preference=mx.preference,
                outcome=HostOutcome.OPPORTUNISTIC,
                reason=HostReason.INSECURE_MX,
                detail="the MX records come without DNSSEC",
            )
            for mx in chosen
        )
    else:
        named = [(mx.preference, mx.exchange) for mx in chosen]
        hosts = _hosts(named, destination, answers, _names_by_mx(destination, answer))
    return _policy(destination, DaneStatus.HOSTS, detail, answer, hosts, left_out)


def _exchanges(answer: Answer) -> list[MX]:
    """By preference (RFC 7672 §2.2.1), each name once. That of the null MX is left out (RFC 7505 §3)."""
    best: dict[str, MX] = {}
    for mx in sorted(answer.exchanges()):
        if mx.exchange:
            best.setdefault(mx.exchange, mx)
    return list(best.values())


def _names_by_mx(destination: Destination, answer: Answer) -> _ReferenceIds:
    if answer.dnssec is not Dnssec.SECURE:
        # RFC 7672 §3.2.2: "the MX hostname is the only reference identifier".
        return lambda base_domain: (base_domain,)
    return lambda base_domain: (base_domain, destination.name, answer.canonical_name)


def _own_names(destination: Destination) -> _ReferenceIds:
    return lambda base_domain: (base_domain, destination.name)


def _hosts(
    named: Iterable[tuple[int | None, str]], destination: Destination, answers: Answers, reference_ids: _ReferenceIds
) -> tuple[HostPolicy, ...]:
    """The policies of hosts with their preferences. What all of them miss is asked for in one round."""
    policies = []
    missing: Unanswered | None = None
    for preference, name in named:
        try:
            policies.append(_host(name, preference, destination.port, answers, reference_ids))
        except Unanswered as unanswered:
            missing = unanswered
    if missing is not None:
        raise missing
    return tuple(policies)


class _Verdict(NamedTuple):
    """What is demanded of a host for which no TLSA records count."""

    outcome: HostOutcome
    reason: HostReason
    detail: str


def _host(name: str, preference: int | None, port: int, answers: Answers, reference_ids: _ReferenceIds) -> HostPolicy:
    addresses, candidates = _addresses_and_candidates(name, answers)
    found = candidates if isinstance(candidates, _Verdict) else _records(candidates, port, answers)
    if isinstance(found, _Verdict):
        return HostPolicy(name, preference, *found, addresses)
    base_domain, records = found
    is_usable = bool(records.taken)
    return HostPolicy(
        name=name,
        preference=preference,
        outcome=HostOutcome.AUTHENTICATE if is_usable else HostOutcome.ENCRYPT,
        reason=HostReason.USABLE_RECORDS if is_usable else HostReason.UNUSABLE_RECORDS,
        detail=f"{len(records.taken)} usable TLSA records, {len(records.unusable)} unusable",
        addresses=addresses,
        base_domain=base_domain,
        records=records,
        reference_ids=tuple(dict.fromkeys(reference for reference in reference_ids(base_domain) if reference)),
    )


def _addresses_and_candidates(name: str, answers: Answers) -> tuple[tuple[str, ...], tuple[str, ...] | _Verdict]:
    """RFC 7672 §2.2.2: the addresses of a host, and at which names its TLSA records can be."""
    if is_address(name):
        detail = "an address stands in place of a name"
        return (), _Verdict(HostOutcome.OPPORTUNISTIC, HostReason.ADDRESS_AS_NAME, detail)
    questions = [Question(name, RecordType.A), Question(name, RecordType.AAAA)]
    answers.need(questions)
    by_type = [answers.get(question) for question in questions]
    failed = [answer for answer in by_type if _is_lookup_error(answer)]
    found = [answer for answer in by_type if answer.status is Status.NOERROR and not _is_lookup_error(answer)]
    addresses = tuple(address for answer in found for address in answer.names())
    secure = [answer for answer in found if answer.dnssec is Dnssec.SECURE]
    # A server that is silent about one type, as those of some unsigned zones are, does not make the other's answer
    # less true: a zone without DNSSEC has no TLSA records that count. One that is bogus is signed.
    is_disputed = not secure and any(answer.status is not Status.TEMPFAIL for answer in failed)
    if failed and (not found or is_disputed):
        return addresses, _lookup_failed("addresses", failed[0])
    if not found:
        return (), _Verdict(HostOutcome.SKIP, HostReason.NO_ADDRESS, "the name has no address")
    canonical_name = (secure or found)[0].canonical_name
    if secure:
        # RFC 7672 §2.2.3, RFC 7671 §7: the fully expanded name first.
        return addresses, (canonical_name, name) if canonical_name else (name,)
    # Where the alias itself is signed, its owner may have TLSA records at its name.
    alias = answers.get(Question(name, RecordType.CNAME)) if canonical_name else None
    if alias is not None and _is_lookup_error(alias):
        return addresses, _lookup_failed("aliases", alias)
    if alias is not None and alias.dnssec is Dnssec.SECURE:
        return addresses, (name,)
    detail = "the addresses come without DNSSEC"
    return addresses, _Verdict(HostOutcome.OPPORTUNISTIC, HostReason.INSECURE_ADDRESS, detail)


def _records(candidates: tuple[str, ...], port: int, answers: Answers) -> tuple[str, TlsaRecords] | _Verdict:
    """RFC 7672 §2.2.3: the first name with secure TLSA records, the base domain, and these."""
    is_insecure = False
    for base_domain in candidates:
        question = Question(f"_{port}._tcp.{base_domain}", RecordType.TLSA)  # RFC 6698 §3
        if len(question.name) > MAX_DOMAIN_CHARS:
            continue  # no such name can be registered, so that nothing is there
        answer = answers.get(question)
        if _is_lookup_error(answer):
            return _lookup_failed("TLSA records", answer)
        if answer.status is Status.NOERROR and answer.dnssec is Dnssec.SECURE:
            if len(answer.records) > MAX_RRSET:
                detail = f"there are more than {MAX_RRSET} TLSA records"
                return _Verdict(HostOutcome.SKIP, HostReason.LOOKUP_FAILED, detail)
            return base_domain, answer.read(TlsaRecords, lambda found: read_records(found.associations()))
        is_insecure = is_insecure or answer.status is Status.NOERROR
    if is_insecure:
        detail = "the TLSA records come without DNSSEC"
        return _Verdict(HostOutcome.OPPORTUNISTIC, HostReason.INSECURE_RECORDS, detail)
    return _Verdict(HostOutcome.OPPORTUNISTIC, HostReason.NO_RECORDS, "there are no TLSA records")


def _lookup_failed(what: str, answer: Answer) -> _Verdict:
    return _Verdict(HostOutcome.SKIP, HostReason.LOOKUP_FAILED, f"the {what} are not known: {_failure(answer)}")


def _is_lookup_error(answer: Answer) -> bool:
    """RFC 7672 §2.1.1: bogus and indeterminate are failures, as no answer is."""
    return answer.has_failed or answer.dnssec in (Dnssec.BOGUS, Dnssec.INDETERMINATE)


def _failure(answer: Answer) -> str:
    what = answer.status if answer.status is Status.TEMPFAIL else answer.dnssec
    return f"{what.value}{f' ({answer.detail})' if answer.detail else ''}"


def _policy(
    destination: Destination,
    status: DaneStatus,
    detail: str,
    answer: Answer | None = None,
    hosts: tuple[HostPolicy, ...] = (),
    hosts_left_out: int = 0,
) -> DanePolicy:
    return DanePolicy(
        destination=str(destination),
        port=destination.port,
        status=status,
        detail=detail,
        mx_dnssec=answer.dnssec if answer is not None else None,
        hosts=hosts,
        hosts_left_out=hosts_left_out,
    )
