"""How mail to a domain is protected on its way: MX, DANE, MTA-STS and the reports about them.

RFC 5321 §5.1 (MX), RFC 7505 (null MX), RFC 7672 (DANE), RFC 8461 (MTA-STS), RFC 8460 §3 (TLSRPT). Pure: the policy of
MTA-STS, which is fetched over HTTPS, is an argument.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mailguard.dane.destination import Destination, is_address
from mailguard.dane.discover import MAX_HOSTS
from mailguard.dane.discover import discover as discover_dane
from mailguard.dane.result import DaneStatus, HostOutcome, HostPolicy, HostReason
from mailguard.dmarc.report_uri import ReportUri
from mailguard.dns.answers import Answers
from mailguard.dns.question import MX, Answer, Question, RecordType, Status
from mailguard.dns.validation import ValidationStatus
from mailguard.domain import Domain
from mailguard.explain.explanation import Explanation, octets_text
from mailguard.mtasts.policy import StsMode, StsPolicy
from mailguard.mtasts.record import DiscoveryStatus, record_question
from mailguard.mtasts.record import discover as discover_sts
from mailguard.mtasts.result import FetchOutcome
from mailguard.scorecard.card import Mark, card, finding

__all__ = ["dane_card", "mta_sts_card", "mx_card", "tls_report_card"]

_TLS_REPORTS = re.compile(rb"v=TLSRPTv1[ \t]*;")
_HOST_MARKS: Mapping[HostOutcome, Mark] = {
    HostOutcome.AUTHENTICATE: Mark.OK,
    HostOutcome.ENCRYPT: Mark.PROBLEM,
    HostOutcome.OPPORTUNISTIC: Mark.NOTE,
    HostOutcome.SKIP: Mark.PROBLEM,
}
_HOST_ADVICE: Mapping[HostOutcome, str] = {
    HostOutcome.ENCRYPT: "publish a record that can be used: mailguard dns --certificate prints it",
    HostOutcome.OPPORTUNISTIC: "sign the zone with DNSSEC and publish TLSA records, or use MTA-STS",
    HostOutcome.SKIP: "senders that know DANE do not deliver to this host: repair its DNS",
}
_STS_ADVICE: Mapping[DiscoveryStatus, str] = {
    DiscoveryStatus.SEVERAL: "leave one",
    DiscoveryStatus.MALFORMED: "publish v=STSv1; id=NUMBER;, where the number changes with the policy file",
}
# What a resolver that does not validate, or whose word does not count, makes of all that is signed.
_UNSIGNED = frozenset({HostReason.INSECURE_MX, HostReason.INSECURE_ADDRESS, HostReason.INSECURE_RECORDS})


def mx_card(domain: Domain, answers: Answers) -> Explanation:
    """Raises Unanswered while an answer is missing."""
    answer = answers.get(Question(domain, RecordType.MX))
    hosts = sorted(answer.exchanges())
    if answer.has_failed:
        found = [finding(Mark.UNKNOWN, answer.detail or "the DNS did not answer")]
    elif answer.status is Status.NXDOMAIN:
        found = [finding(Mark.PROBLEM, f"{domain} does not exist")]
    elif not hosts:
        advice = "publish MX: senders fall back on the address of the name, which many see as a mistake"
        found = [finding(Mark.NOTE, f"{domain} has no MX record", advice)]
    elif not any(host.exchange for host in hosts):
        found = [finding(Mark.OK, f"{domain} takes no mail (null MX)")]
    else:
        found = _mail_hosts(hosts, answers)
    return card("MX", found)


def _mail_hosts(hosts: Sequence[MX], answers: Answers) -> list[Explanation]:
    """Whether mail can get to each of them."""
    named = [host for host in hosts if host.exchange]
    types = (RecordType.A, RecordType.AAAA)
    asked = {
        host: [Question(host.exchange, rdtype) for rdtype in types if not is_address(host.exchange)]
        for host in named[:MAX_HOSTS]
    }
    answers.need(question for questions in asked.values() for question in questions)
    found = [_mail_host(host, [answers.get(question) for question in asked[host]]) for host in asked]
    if len(named) < len(hosts):
        advice = "remove it, or the others: some senders take it to mean that there is no mail here (RFC 7505)"
        found.append(finding(Mark.PROBLEM, "a null MX stands beside other hosts", advice))
    if len(named) > MAX_HOSTS:
        found.append(finding(Mark.NOTE, f"{len(named) - MAX_HOSTS} more hosts are not looked at"))
    return found


def _mail_host(host: MX, addresses: Sequence[Answer]) -> Explanation:
    text = f"{host.preference} {host.exchange}"
    failed = [answer for answer in addresses if answer.has_failed]
    if is_address(host.exchange):
        return finding(Mark.PROBLEM, f"{text}: it is an address", "let the MX record name a host")
    if any(answer.names() for answer in addresses):
        canonical = next((answer.canonical_name for answer in addresses if answer.canonical_name), "")
        if canonical:
            # RFC 5321 §5.1: the name in an MX record has addresses itself.
            advice = f"let the MX record name {canonical}: some senders refuse an alias"
            return finding(Mark.NOTE, f"{text}: it is an alias of {canonical}", advice)
        return finding(Mark.OK, text)
    if failed:
        return finding(Mark.UNKNOWN, f"{text}: {failed[0].detail or 'the DNS did not answer'}")
    return finding(Mark.PROBLEM, f"{text}: it has no address", "give the host an address, or remove the MX record")


def dane_card(domain: Domain, answers: Answers, resolver: ValidationStatus) -> Explanation:
    """`resolver` is what was found out about the one that was asked. Raises Unanswered while an answer is missing."""
    policy = discover_dane(Destination.parse(domain), answers)
    match policy.status:
        case DaneStatus.HOSTS:
            found = [_host(host, resolver) for host in policy.hosts]
        case DaneStatus.DEFER:
            found = [finding(Mark.UNKNOWN, policy.detail)]
        case _:
            found = [finding(Mark.OK, policy.detail)]
    return card("DANE", found)


def _host(host: HostPolicy, resolver: ValidationStatus) -> Explanation:
    if host.reason in _UNSIGNED and resolver is not ValidationStatus.VALIDATES:
        advice = "ask a resolver that validates, on loopback or in trust_ad under [dns]"
        return finding(Mark.NOTE, f"{host.name}: whether it has DANE cannot be told: {resolver.value}", advice)
    is_failed = host.reason is HostReason.LOOKUP_FAILED
    return finding(
        Mark.UNKNOWN if is_failed else _HOST_MARKS[host.outcome],
        f"{host.name}: {host.outcome.value}: {host.detail}",
        _HOST_ADVICE.get(host.outcome, ""),
    )


def mta_sts_card(domain: Domain, answers: Answers, fetched: FetchOutcome | None) -> Explanation:
    """`fetched` is None where nobody tried. Raises Unanswered while an answer is missing."""
    record = discover_sts(domain, answers)
    if record.status is DiscoveryStatus.ABSENT:
        return card("MTA-STS", [_no_sts_record(domain, answers)])
    if record.status is not DiscoveryStatus.FOUND:
        mark = Mark.UNKNOWN if record.status is DiscoveryStatus.UNAVAILABLE else Mark.PROBLEM
        return card("MTA-STS", [finding(mark, record.detail, _STS_ADVICE.get(record.status, ""))])
    if fetched is None:
        return card("MTA-STS", [finding(Mark.NOTE, "the record is there; the policy file was not fetched")])
    policy = fetched.policy
    if policy is None:
        advice = f"serve it at https://mta-sts.{domain}/.well-known/mta-sts.txt"
        return card("MTA-STS", [finding(Mark.PROBLEM, f"the policy file: {fetched.detail}", advice)])
    return card("MTA-STS", [*_policy(policy), *_uncovered(domain, policy, answers)])


def _no_sts_record(domain: Domain, answers: Answers) -> Explanation:
    question = record_question(domain)
    texts = answers.get(question).texts() if question is not None else ()
    meant = next((text for text in texts if b"stsv1" in text.lower()), None)
    if meant is not None:
        # RFC 8461 §3.1: the version is the very beginning, in this case, and a semicolon follows.
        return finding(Mark.PROBLEM, f"{octets_text(meant)}: it counts as none", "let it begin with: v=STSv1;")
    advice = "mailguard dns prints record and policy file"
    return finding(Mark.NOTE, f"{domain} has no MTA-STS record", advice)


def _policy(policy: StsPolicy) -> list[Explanation]:
    text = f"mode {policy.mode.value}, for {', '.join(policy.mx) or 'no host'}, {policy.max_age_s // 86_400} days"
    if policy.mode is StsMode.ENFORCE:
        return [finding(Mark.OK, text)]
    return [finding(Mark.NOTE, text, "when the reports are clean: mode: enforce, and a new id in the record")]


def _uncovered(domain: Domain, policy: StsPolicy, answers: Answers) -> list[Explanation]:
    """RFC 8461 §4.1: mail does not go to a host that the policy does not name."""
    hosts = [mx.exchange for mx in answers.get(Question(domain, RecordType.MX)).exchanges() if mx.exchange]
    return [
        finding(Mark.PROBLEM, f"{host} is an MX, and the policy does not name it", "add it to the policy file")
        for host in hosts
        if policy.mode is not StsMode.NONE and not policy.allows(host)
    ]


def tls_report_card(domain: Domain, answers: Answers) -> Explanation:
    """Raises Unanswered while an answer is missing."""
    name = f"_smtp._tls.{domain}"
    answer = answers.get(Question(name, RecordType.TXT))
    # RFC 8460 §3: what does not begin with the version and a semicolon is discarded, before they are counted.
    texts = [text for text in answer.texts() if _TLS_REPORTS.match(text)]
    meant = [text for text in answer.texts() if b"tlsrpt" in text.lower()]
    if answer.has_failed:
        found = [finding(Mark.UNKNOWN, answer.detail or "the DNS did not answer")]
    elif not texts and meant:
        advice = "let it begin with: v=TLSRPTv1;"
        found = [finding(Mark.PROBLEM, f"{octets_text(meant[0])}: it counts as none", advice)]
    elif not texts:
        found = [
            finding(Mark.NOTE, f"{name} has no record", "mailguard dns prints one: senders then report failures")
        ]
    elif len(texts) > 1:
        found = [finding(Mark.PROBLEM, f"{name} has {len(texts)} records: they count as none", "leave one")]
    elif not _report_uris(texts[0]):
        detail = f"{octets_text(texts[0])}: no rua= with an address that can be used"
        found = [finding(Mark.PROBLEM, detail, "say where reports go: rua=mailto:ADDRESS")]
    else:
        found = [finding(Mark.OK, octets_text(texts[0]))]
    return card("TLSRPT", found)


def _report_uris(record: bytes) -> tuple[ReportUri, ...]:
    """The destinations in rua, as DMARC has them: mailto and https (RFC 8460 §3)."""
    fields = (field.strip(b" \t").partition(b"=") for field in record.split(b";"))
    return next((ReportUri.parse_list(value) for name, _, value in fields if name == b"rua"), ())
