"""What `mailguard test` says of a message's way: a card for each part of it, with what to do. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mailguard.audit.facts import HostFacts
from mailguard.audit.postfix import MX_PORTS, Service, quoted
from mailguard.cli.exit_code import ExitCode
from mailguard.cli.mail_trail import Delivery, Hop, Trail
from mailguard.cli.reply_meaning import meaning_of
from mailguard.cli.trial_message import Handed, SmtpPlace, TrialMessage
from mailguard.config import Config
from mailguard.dkim.result import DkimResult, DkimStatus
from mailguard.domain import Domain
from mailguard.explain.dkim_node import dkim_nodes
from mailguard.explain.explanation import Explanation
from mailguard.key_places import signer_of
from mailguard.scorecard.card import Mark, card, finding
from mailguard.setup_host.milter_entry import Entry, entries
from mailguard.setup_host.milter_plan import MILTERS, OTHER_MILTERS, MilterPlan, is_ours, milter_services

__all__ = ["Trial", "cards", "copy_card", "exit_code_of"]

# What the daemon logs of a message, as far as it says what became of it.
SHOWN = (
    *("role", "client", "login", "d", "s", "a", "spf", "dkim", "dmarc", "domain"),
    *("action", "would", "rule", "reason", "noted", "warning"),
)
MAX_SHOWN_CHARS = 600
MILTER_DOWN = re.compile(r"connect to Milter service (\S+):|milter (\S+):")
NAMED_PORTS = {"smtp": 25, "submission": 587, "submissions": 465, "smtps": 465}
LOOK_AT_DAEMON = (
    "systemctl start mailguard-milter; mailguard doctor looks at the socket as Postfix's user does; journalctl -u"
    " mailguard-milter says why it ended"
)
RELOAD_DAEMON = "systemctl reload mailguard-milter"
FIRST_REPLY = re.compile(r"said: ([245][0-9]{2})")


@dataclass(frozen=True, slots=True)
class Trial:
    """A message that was handed over, and what the host is like."""

    message: TrialMessage
    handed: Handed
    place: SmtpPlace | None
    """None: by sendmail(1)."""
    facts: HostFacts
    config: Config
    config_file: str
    plan: MilterPlan | None
    """What `mailguard postconf` would change; None where that cannot be told."""
    signing: frozenset[Domain]
    """The domains that there are keys for."""
    logs: str
    """Which logs were watched."""
    waited_s: float


def cards(trial: Trial, trail: Trail) -> Iterator[Explanation]:
    """In the order of the way."""
    hops = trail.hops
    yield _handed_card(trial, trail)
    if trial.handed.fault or (trial.handed.code and not (trail.warnings or hops)):
        return
    records = [(hop, record) for hop in hops if (record := trail.record(hop)) is not None]
    is_signed = False
    for hop, record in records:
        yield _record_card(trial, hop, record, is_signed=is_signed)
        is_signed = is_signed or "d" in record
    if not records:
        yield _silence_card(trial, trail)
    for hop in hops:
        for each in hop.deliveries:
            yield _delivery_card(trial, hop, each)
        if hop.is_removed and not (hop.deliveries or hop.verdicts):
            yield _gone_card(hop)
    open_ones = [hop for hop in hops if not hop.is_over]
    if open_ones and not trial.handed.code:
        ids = ", ".join(each.queue_id for each in open_ones)
        said = finding(
            Mark.UNKNOWN,
            f"{ids} is still on its way after {trial.waited_s:.0f} s",
            f"{_command(trial, 'postqueue')} -p shows the queue; grep {open_ones[0].queue_id} in the log shows what"
            " comes; or wait longer with --wait",
        )
        yield card("time", [said])


def exit_code_of(
    trial: Trial, trail: Trail, results: Sequence[DkimResult] | None, *, is_copy_wanted: bool
) -> ExitCode:
    """`results` are of the copy that was read back, if found; `is_copy_wanted`: without it nothing is known."""
    hops = trail.hops
    deliveries = [each for hop in hops for each in hop.deliveries]
    verdicts = [each for hop in hops for each in hop.verdicts]
    if trial.handed.is_unanswered:
        return ExitCode.TEMPORARY
    if trial.handed.fault or trial.handed.code >= 500:
        return ExitCode.FAIL
    if any(each.status not in ("sent", "deferred") for each in deliveries):
        return ExitCode.FAIL
    if any(not each.is_temporary for each in verdicts):
        return ExitCode.FAIL
    if trial.handed.code or verdicts or not trail.is_over or any(each.status == "deferred" for each in deliveries):
        return ExitCode.TEMPORARY
    if (results is None and is_copy_wanted) or not all(hop.deliveries for hop in hops):
        return ExitCode.TEMPORARY
    if results is not None and not any(_counts(each, trial) for each in results):
        is_open = any(each.status is DkimStatus.TEMPERROR for each in results)
        return ExitCode.TEMPORARY if is_open else ExitCode.FAIL if results else ExitCode.NO_SIGNATURE
    is_signed = any("d" in (trail.record(hop) or {}) for hop in hops) or bool(results)
    return ExitCode.PASS if is_signed else ExitCode.NO_SIGNATURE


def _counts(result: DkimResult, trial: Trial) -> bool:
    return result.status is DkimStatus.PASS and result.domain == _signer(trial)


def _signer(trial: Trial) -> Domain:
    """The d= with which mail of the sender is signed: with `subdomains = true`, a domain above its own."""
    domain = trial.message.sender.domain
    return signer_of(trial.config, domain) or domain


# -- handed over ---------------------------------------------------------------------------------------------------


def _handed_card(trial: Trial, trail: Trail) -> Explanation:
    message, handed = trial.message, trial.handed
    way = "sendmail(1)" if trial.place is None else f"SMTP to {trial.place}"
    facts = [("by", way), ("From", str(message.sender)), ("Message-ID", message.message_id)]
    ids = [each.queue_id for each in trail.hops] or [handed.queue_id]
    refusals = [(hop, each) for hop in trail.hops for each in hop.verdicts]
    found = []
    if handed.fault:
        found.append(finding(Mark.PROBLEM, f"it was not handed over: {handed.fault}", _remedy(trial)))
    elif handed.code:
        mark = Mark.PROBLEM if handed.code >= 500 else Mark.UNKNOWN
        found.append(finding(mark, f"refused: {handed.code} {handed.reply}", _refusal_advice(trial)))
    elif not any(ids):
        advice = (
            "is this the log that Postfix writes to? Run this as root, or name the log with --log;"
            f" {_command(trial, 'postqueue')} -p shows whether Postfix has the message"
        )
        detail = f"no line of {trial.logs} names it within {trial.waited_s:.0f} s"
        found.append(finding(Mark.UNKNOWN, detail, advice))
    elif not refusals:
        found.append(finding(Mark.OK, f"Postfix accepted it as {', then '.join(ids)}"))
    for hop, each in refusals:
        found.append(
            _verdict_finding(trial, hop, each.verdict, each.text, by_milter=each.by_milter, waits=each.is_temporary)
        )
    return card("handed over", found, facts=facts)


def _verdict_finding(trial: Trial, hop: Hop, verdict: str, text: str, *, by_milter: bool, waits: bool) -> Explanation:
    whose = "a milter" if by_milter else "cleanup(8)"
    said = text.partition("; from=")[0]
    if waits:
        return finding(
            Mark.UNKNOWN,
            f"{hop.queue_id}: {whose} had it wait: {said}",
            "it is tried again each minute, also without you: once the milter answers, it goes out",
        )
    if verdict == "hold":
        look, change = _command(trial, "postcat"), _command(trial, "postsuper")
        advice = f"look at it with {look} -q {hop.queue_id}; {change} -H {hop.queue_id} releases it, -d deletes it"
        return finding(Mark.PROBLEM, f"{hop.queue_id}: {whose} put it into quarantine: {said}", advice)
    done = "refused" if verdict == "reject" else "discarded"
    return finding(Mark.PROBLEM, f"{hop.queue_id}: {whose} {done} it: {said}", "see below what mailguard says of it")


def _remedy(trial: Trial) -> str:
    if trial.place is None:
        return "is Postfix running? postfix start, or systemctl start postfix; then run this again"
    return "is a submission service running there? Look at ss -ltn, and name it as --smtp HOST:PORT"


def _refusal_advice(trial: Trial) -> str:
    handed = trial.handed
    meaning, advice = meaning_of(handed.dsn, handed.reply)
    if "mailguard:" in handed.reply:
        return "the reply is mailguard's: docs/reasons.md explains the word in brackets"
    if trial.place is not None and not trial.place.login and handed.code in (530, 550, 554):
        return "a submission service wants a login: add --login USER"
    return f"{meaning}: {advice}"


# -- mailguard -----------------------------------------------------------------------------------------------------


def _record_card(trial: Trial, hop: Hop, record: Mapping[str, str], *, is_signed: bool) -> Explanation:
    """`is_signed`: it was, on its way to here."""
    facts = [(name, record[name][:MAX_SHOWN_CHARS]) for name in SHOWN if record.get(name)]
    if trial.config.trace.enabled and record.get("role") == "verify":
        facts.append(("more", f"mailguard explain {hop.queue_id}"))
    return card(f"mailguard, {hop.queue_id}", list(_of_record(trial, hop, record, is_signed=is_signed)), facts=facts)


def _of_record(trial: Trial, hop: Hop, record: Mapping[str, str], *, is_signed: bool) -> Iterator[Explanation]:
    action, rule, reason = record["action"], record.get("rule", ""), record.get("reason", "")
    if action in ("reject", "tempfail"):
        done = "refused it" if action == "reject" else "had it wait (451)"
        mark = Mark.PROBLEM if action == "reject" else Mark.UNKNOWN
        advice = f"docs/reasons.md explains {rule}" if rule else "journalctl -u mailguard-milter says more"
        if reason.startswith("signing key:"):
            advice = "mailguard key test says which key cannot be used, and why"
        elif rule == "macros-missing":
            advice = f"mailguard postconf --apply; {_reload(trial)}"
        yield finding(mark, f"mailguard {done}: {reason}", advice)
    elif "d" in record:
        yield finding(Mark.OK, f"signed: d={record['d']} s={record.get('s', '?')} a={record.get('a', '?')}")
    elif record.get("role") == "verify" and is_signed:
        yield finding(Mark.OK, "it came back to this host, as from a content filter, and was judged as from outside")
    elif record.get("role") == "verify":
        yield _judged_as_foreign(trial, record)
    elif "no key is configured" in reason:
        yield finding(Mark.PROBLEM, f"not signed: {reason}", _new_key(trial))
    else:
        yield finding(Mark.PROBLEM, f"not signed: {reason}", "docs/reasons.md explains it")
    if action == "quarantine":
        advice = f"{_command(trial, 'postsuper')} -H {hop.queue_id} releases it"
        yield finding(Mark.PROBLEM, f"mailguard put it into quarantine: {reason}", advice)
    if record.get("would"):
        yield finding(
            Mark.NOTE,
            f'with mode = "enforce" it would be: {record["would"]} ({rule})',
            f"docs/reasons.md explains {rule}",
        )
    if record.get("warning"):
        yield finding(Mark.NOTE, f"Postfix does not tell all: {record['warning']}", "mailguard postconf")


def _judged_as_foreign(trial: Trial, record: Mapping[str, str]) -> Explanation:
    domain = trial.message.sender.domain
    if trial.place is not None:
        detail = "judged as mail from outside, and not signed: Postfix gave no login, nor a name in sign.daemon_names"
        return finding(Mark.NOTE, detail, "add --login USER, as your users do; mailguard postconf")
    detail = (
        f"judged as mail from outside, and not signed: mail of sendmail(1) has the client"
        f" {record.get('client', '127.0.0.1')}, which no [[sign.networks]] lists for {domain}"
    )
    lines = ("[[sign.networks]]", 'networks = ["127.0.0.1/32"]', f'domains = ["{domain}"]')
    advice = (
        "unless a content filter returns mail from there:"
        f" printf '\\n%s\\n%s\\n%s\\n' {' '.join(map(quoted, lines))} >> {shlex.quote(trial.config_file)};"
        f" then {RELOAD_DAEMON}. To see how mail of your users is signed: --smtp 127.0.0.1 --login USER"
    )
    if _signer(trial) not in trial.signing:
        advice = f"{_new_key(trial)}. Then {advice}"
    return finding(Mark.NOTE, detail, advice)


def _new_key(trial: Trial) -> str:
    domain = trial.message.sender.domain
    made = f"mailguard key new {domain}, publish the records that it prints, and add its lines to {trial.config_file}"
    above = next((each for each in trial.signing if domain.endswith(f".{each}")), None)
    if above is not None:
        made = f'set subdomains = true in [domains."{above}"] of {trial.config_file}; or {made}'
    others = ", ".join(sorted(trial.signing)[:10])
    return f"{made}; then {RELOAD_DAEMON}" + (f". There are keys for {others}: --from" if others else "")


def _silence_card(trial: Trial, trail: Trail) -> Explanation:
    """No line of the daemon's names the message."""
    return card("mailguard", list(_of_silence(trial, trail)))


def _of_silence(trial: Trial, trail: Trail) -> Iterator[Explanation]:
    postfix = trial.facts.postfix
    for each in trail.warnings:
        found = MILTER_DOWN.search(each)
        address = (found[1] or found[2]) if found is not None else ""
        whose = is_ours(Entry(address), trial.config, postfix)
        advice = LOOK_AT_DAEMON if whose else "this milter is not mailguard: start it, or take it out of Postfix"
        yield finding(Mark.PROBLEM, f"Postfix says: {each}", advice)
    if trail.warnings:
        return
    name, service = _list_of(trial)
    value = postfix.value(name, service)
    where = service.place if service is not None else "main.cf"
    if not any(is_ours(each, trial.config, postfix) for each in entries(value)):
        detail = f"mailguard was not asked: {name} ({where}) does not name it; it is {value or 'empty'}"
        yield finding(Mark.PROBLEM, detail, _setting(trial, name, service))
        return
    if not trail.hops:
        yield finding(Mark.UNKNOWN, "the log says nothing of it", "see above")
        return
    stderr = trial.config.log.destination == "stderr"
    where = "to stderr, which journald or a file has" if stderr else "to syslog's facility mail"
    yield finding(
        Mark.UNKNOWN,
        f"no line of mailguard's about it in {trial.logs}: it logs {where}",
        "name that log too: --log FILE, as often as needed",
    )


def _list_of(trial: Trial) -> tuple[str, Service | None]:
    if trial.place is None:
        return OTHER_MILTERS, None
    for each in milter_services(trial.facts.postfix):
        port = int(each.port) if each.port.isdigit() else NAMED_PORTS.get(each.port)
        if port == trial.place.port and (each.kind == "inet" or each.port in MX_PORTS):
            return MILTERS, each
    return MILTERS, None


def _setting(trial: Trial, name: str, service: Service | None) -> str:
    for each in trial.plan.settings if trial.plan is not None else ():
        if each.name == name and each.service in (service, None):
            return f"{each.command(trial.facts.postfix)}; {_reload(trial)}"
    return f"mailguard postconf says what is missing, and --apply writes it; then {_reload(trial)}"


def _reload(trial: Trial) -> str:
    return f"{_command(trial, 'postfix')} reload"


def _command(trial: Trial, name: str) -> str:
    """One of Postfix's commands, for the instance that is meant."""
    program, blank, rest = trial.facts.postfix.postconf.partition(" ")
    directory, slash, _ = program.rpartition("/")
    return f"{directory}{slash}{name}{blank}{rest}"


# -- delivery ------------------------------------------------------------------------------------------------------


def _delivery_card(trial: Trial, hop: Hop, delivery: Delivery) -> Explanation:
    facts = [("relay", delivery.relay), ("dsn", delivery.dsn), ("reply", delivery.reply)]
    if delivery.status == "sent":
        found = finding(Mark.OK, f"{delivery.relay} has taken it over")
        return card(f"delivery, {hop.queue_id}", [found], detail=f"to {delivery.recipient}", facts=facts)
    meaning, advice = meaning_of(delivery.dsn, delivery.reply)
    reply = FIRST_REPLY.search(delivery.reply)
    who = f"{delivery.relay} said {reply[1]}" if reply is not None else delivery.relay
    if who == "none":
        who = "no server was reached"
    if delivery.status == "deferred":
        detail = f"deferred ({who}): {meaning}. Postfix keeps it and tries again"
        again, delete = _command(trial, "postqueue"), _command(trial, "postsuper")
        advice = f"{advice}; {again} -i {hop.queue_id} tries now, {delete} -d {hop.queue_id} deletes it"
        found = finding(Mark.UNKNOWN, detail, advice)
    else:
        found = finding(Mark.PROBLEM, f"{delivery.status} ({who}): {meaning}", advice)
    return card(f"delivery, {hop.queue_id}", [found], detail=f"to {delivery.recipient}", facts=facts)


def _gone_card(hop: Hop) -> Explanation:
    detail = f"{hop.queue_id} left the queue, and the log does not say where to"
    advice = f"was it deleted (postsuper -d)? grep {hop.queue_id} in the log shows all that is known"
    return card(f"delivery, {hop.queue_id}", [finding(Mark.UNKNOWN, detail, advice)])


def copy_card(trial: Trial, mailbox: str, results: Sequence[DkimResult] | None) -> Explanation:
    """The signatures of the message as it was delivered; None if it was not found there."""
    if results is None:
        said = finding(
            Mark.UNKNOWN, f"it is not in {mailbox}", "is this the mailbox of the address? Or wait longer: --wait"
        )
        return card("as delivered", [said])
    domain = _signer(trial)
    if any(_counts(each, trial) for each in results):
        said = finding(Mark.OK, f"a signature of {domain} passes")
    elif results:
        said = finding(Mark.PROBLEM, f"no signature of {domain} passes", "see below; mailguard key test")
    else:
        said = finding(Mark.NOTE, "it has no signature", "see above, what mailguard says of it")
    nodes = dkim_nodes(results, 0, {}, author=None) if results else ()
    return card("as delivered", [said], facts=[("mailbox", mailbox)], others=nodes)
