"""How mail to a domain is protected on its way: MX, DANE, MTA-STS and the reports about them.

RFC 7505 (null MX), RFC 7672 (DANE), RFC 8461 (MTA-STS), RFC 8460 §3 (TLSRPT). Pure: the policy of MTA-STS, which is
fetched over HTTPS, is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping

from mailguard.dane.destination import Destination
from mailguard.dane.discover import discover as discover_dane
from mailguard.dane.result import DaneStatus, HostOutcome, HostPolicy
from mailguard.dns.answers import Answers
from mailguard.dns.question import Question, RecordType, Status
from mailguard.domain import Domain
from mailguard.explain.explanation import Explanation, octets_text
from mailguard.mtasts.policy import StsMode, StsPolicy
from mailguard.mtasts.record import DiscoveryStatus
from mailguard.mtasts.record import discover as discover_sts
from mailguard.mtasts.result import FetchOutcome
from mailguard.scorecard.card import Mark, card, finding

__all__ = ["dane_card", "mta_sts_card", "mx_card", "tls_report_card"]

_TLS_REPORTS = b"v=TLSRPTv1"
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


def mx_card(domain: Domain, answers: Answers) -> Explanation:
    """Raises Unanswered while an answer is missing."""
    answer = answers.get(Question(domain, RecordType.MX))
    hosts = sorted(answer.exchanges())
    if answer.status in (Status.TEMPFAIL, Status.BOGUS):
        found = [finding(Mark.UNKNOWN, answer.detail or "the DNS did not answer")]
    elif answer.status is Status.NXDOMAIN:
        found = [finding(Mark.PROBLEM, f"{domain} does not exist")]
    elif not hosts:
        advice = "publish MX: senders fall back on the address of the name, which many see as a mistake"
        found = [finding(Mark.NOTE, f"{domain} has no MX record", advice)]
    elif any(not host.exchange for host in hosts):
        found = [finding(Mark.OK, f"{domain} takes no mail (null MX)")]
    else:
        found = [finding(Mark.OK, f"{host.preference} {host.exchange}") for host in hosts]
    return card("MX", found)


def dane_card(domain: Domain, answers: Answers) -> Explanation:
    """Raises Unanswered while an answer is missing."""
    policy = discover_dane(Destination.parse(domain), answers)
    match policy.status:
        case DaneStatus.HOSTS:
            found = [_host(host) for host in policy.hosts]
        case DaneStatus.DEFER:
            found = [finding(Mark.UNKNOWN, policy.detail)]
        case _:
            found = [finding(Mark.OK, policy.detail)]
    return card("DANE", found)


def _host(host: HostPolicy) -> Explanation:
    return finding(
        _HOST_MARKS[host.outcome],
        f"{host.name}: {host.outcome.value}: {host.detail}",
        _HOST_ADVICE.get(host.outcome, ""),
    )


def mta_sts_card(domain: Domain, answers: Answers, fetched: FetchOutcome | None) -> Explanation:
    """`fetched` is None where nobody tried. Raises Unanswered while an answer is missing."""
    record = discover_sts(domain, answers)
    if record.status is DiscoveryStatus.ABSENT:
        advice = "mailguard dns prints record and policy file"
        return card("MTA-STS", [finding(Mark.NOTE, f"{domain} has no MTA-STS record", advice)])
    if record.status is not DiscoveryStatus.FOUND:
        mark = Mark.UNKNOWN if record.status is DiscoveryStatus.UNAVAILABLE else Mark.PROBLEM
        return card("MTA-STS", [finding(mark, record.detail)])
    if fetched is None:
        return card("MTA-STS", [finding(Mark.NOTE, "the record is there; the policy file was not fetched")])
    policy = fetched.policy
    if policy is None:
        advice = f"serve it at https://mta-sts.{domain}/.well-known/mta-sts.txt"
        return card("MTA-STS", [finding(Mark.PROBLEM, f"the policy file: {fetched.detail}", advice)])
    return card("MTA-STS", [*_policy(policy), *_uncovered(domain, policy, answers)])


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
    texts = [text for text in answer.texts() if text.startswith(_TLS_REPORTS)]
    if answer.status in (Status.TEMPFAIL, Status.BOGUS):
        found = [finding(Mark.UNKNOWN, answer.detail or "the DNS did not answer")]
    elif not texts:
        found = [
            finding(Mark.NOTE, f"{name} has no record", "mailguard dns prints one: senders then report failures")
        ]
    elif len(texts) > 1:
        found = [finding(Mark.PROBLEM, f"{name} has {len(texts)} records: they count as none", "leave one")]
    elif b"rua=" not in texts[0].replace(b" ", b""):
        found = [
            finding(Mark.PROBLEM, f"{octets_text(texts[0])}: no rua=", "say where reports go: rua=mailto:ADDRESS")
        ]
    else:
        found = [finding(Mark.OK, octets_text(texts[0]))]
    return card("TLSRPT", found)
