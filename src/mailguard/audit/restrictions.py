"""What is asked of a client, its greeting, the sender and the recipient. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from mailguard.audit.facts import HostFacts
from mailguard.audit.finding import Check, Found, Severity
from mailguard.audit.postfix import Service
from mailguard.audit.restriction_list import words

__all__ = ["CHECKS"]

# Mail programs greet with whatever name their computer has.
OWN_CLIENTS = ("permit_mynetworks", "permit_sasl_authenticated")
HELO = ("reject_invalid_helo_hostname", "reject_non_fqdn_helo_hostname", "reject_unknown_helo_hostname")
SENDER = ("reject_non_fqdn_sender", "reject_unknown_sender_domain")
RECIPIENT = ("reject_non_fqdn_recipient", "reject_unknown_recipient_domain")
BLOCKLISTS = frozenset(
    {"reject_rbl_client", "reject_rhsbl_client", "reject_rhsbl_helo", "reject_rhsbl_sender"}
    | {"reject_rhsbl_reverse_client"}
)
# postconf(5), smtpd_reject_unlisted_recipient: where the table is empty, every recipient in the domains is known.
OTHER_CLASSES = (("virtual_mailbox_domains", "virtual_mailbox_maps"), ("relay_domains", "relay_recipient_maps"))
# Where local(8) has somebody else deliver.
ELSEWHERE = ("mailbox_transport", "mailbox_transport_maps", "fallback_transport", "luser_relay")
# How the addresses of known greylisting services read, by name or by their usual port.
GREYLISTERS = ("grey", "gld", "10023", "10031", "2501", "2525")
DEEP_TESTS = ("pipelining", "non_smtp_command", "bare_newline")
SPAM_FILTERS = ("rspamd", "11332")


def helo_required(facts: HostFacts) -> Iterator[Found]:
    """Port 25."""
    yield from _switched_off(facts, "smtpd_helo_required")


def helo(facts: HostFacts) -> Iterator[Found]:
    """Any one of them, in any list."""
    yield from _missing(facts, HELO, "smtpd_helo_restrictions", ", ".join((*OWN_CLIENTS, *HELO[:2])))


def sender(facts: HostFacts) -> Iterator[Found]:
    """Any one of them, in any list."""
    yield from _missing(facts, SENDER, "smtpd_sender_restrictions", ", ".join(SENDER))


def recipient(facts: HostFacts) -> Iterator[Found]:
    """Any one of them, in any list."""
    yield from _missing(facts, RECIPIENT, "smtpd_recipient_restrictions", ", ".join(RECIPIENT))


def unknown_recipients(facts: HostFacts) -> Iterator[Found]:
    """At RCPT TO, and for each class of domains."""
    postfix = facts.postfix
    for service in postfix.mx_services:
        asked, own = facts.all_restrictions(service), words(postfix.value("mydestination", service))
        if "reject_unverified_recipient" in asked:
            continue  # who has the mailbox is asked, whatever the tables say
        if not postfix.is_on("smtpd_reject_unlisted_recipient", service) and "reject_unlisted_recipient" not in asked:
            command = postfix.setting("smtpd_reject_unlisted_recipient", "yes", service)
            yield Found(service.place, "smtpd_reject_unlisted_recipient = no", (command,))
            continue
        if own and not postfix.value("local_recipient_maps", service):
            command = postfix.setting("local_recipient_maps", "proxy:unix:passwd.byname $alias_maps", service)
            if not postfix.value("local_transport").startswith("local") or any(map(postfix.value, ELSEWHERE)):
                # Users of the system may have nothing to do with it.
                command = "# set local_recipient_maps to a table of those who have a mailbox"
            yield Found(service.place, "local_recipient_maps is empty: every local part is accepted", (command,))
        for domains, maps in OTHER_CLASSES:
            # What is in both is local: below level 2 of compatibility, relay_domains is $mydestination.
            others = [word for word in words(postfix.value(domains, service)) if word not in own and word[0] != "!"]
            if others and not postfix.value(maps, service):
                added = "reject_unauth_destination, reject_unverified_recipient"
                commands = (
                    f"# set {maps} to a table of those who have a mailbox; or have their server asked for each:",
                    _for_strangers(facts, added, service),
                )
                what = f"{maps} is empty: every local part is accepted in {', '.join(others)}"
                yield Found(service.place, what, commands)


def vrfy(facts: HostFacts) -> Iterator[Found]:
    """Port 25."""
    yield from _switched_off(facts, "disable_vrfy_command")


def banner(facts: HostFacts) -> Iterator[Found]:
    """The version, not the name."""
    postfix = facts.postfix
    shown = postfix.value("mail_version")
    for service in postfix.mx_services:
        value = postfix.value("smtpd_banner", service)
        if shown and shown in value:
            commands = postfix.text_setting("smtpd_banner", "$myhostname ESMTP", service)
            yield Found(service.place, f"smtpd_banner = {value}", commands)


def blocklists(facts: HostFacts) -> Iterator[Found]:
    """In smtpd, in postscreen or in a spam filter."""
    postfix = facts.postfix
    for service in postfix.mx_services:
        in_postscreen = service.kind == "pass" and postfix.value("postscreen_dnsbl_sites", postfix.postscreen)
        acting = postfix.value("postscreen_dnsbl_action", postfix.postscreen) in ("enforce", "drop")
        if BLOCKLISTS & facts.all_restrictions(service) or (in_postscreen and acting) or _filtered(facts, service):
            continue
        added = "reject_rbl_client zen.spamhaus.org=127.0.0.[2..11]"
        commands = (
            "# needs a resolver of your own; read the terms of the list first",
            _for_strangers(facts, added, service),
        )
        yield Found(service.place, "no blocklist is asked about clients", commands)


def greylisting(facts: HostFacts) -> Iterator[Found]:
    """By a policy service, a milter, or the tests of postscreen that make a new client come back."""
    postfix = facts.postfix
    for service in postfix.mx_services:
        asked = (*facts.policy_services(service), *facts.milters(service))
        by_service = any(name in address for address in asked for name in GREYLISTERS)
        deep = any(postfix.is_on(f"postscreen_{name}_enable", postfix.postscreen) for name in DEEP_TESTS)
        if by_service or (service.kind == "pass" and deep) or _filtered(facts, service):
            continue
        added = "check_policy_service inet:127.0.0.1:10023"
        commands = ("apt install postgrey", _for_strangers(facts, added, service))
        yield Found(service.place, "no greylisting was found", commands)


def _switched_off(facts: HostFacts, name: str) -> Iterator[Found]:
    postfix = facts.postfix
    for service in postfix.mx_services:
        if not postfix.is_on(name, service):
            yield Found(service.place, f"{name} = no", (postfix.setting(name, "yes", service),))


def _for_strangers(facts: HostFacts, added: str, service: Service) -> str:
    """The command that asks one thing more of strangers; submission may have the list from main.cf as well."""
    found = facts.restrictions("smtpd_recipient_restrictions", service)
    own = () if found[-1:] in (("reject",), ("defer",)) else tuple(word for word in OWN_CLIENTS if word not in found)
    return facts.postfix.appended("smtpd_recipient_restrictions", ", ".join((*own, added)), service)


def _missing(facts: HostFacts, wanted: Collection[str], name: str, added: str) -> Iterator[Found]:
    postfix = facts.postfix
    for service in postfix.mx_services:
        if facts.all_restrictions(service) & frozenset(wanted):
            continue
        command = postfix.prepended(name, added, service)
        yield Found(service.place, f"none of {', '.join(wanted)} is asked", (command,))


def _filtered(facts: HostFacts, service: Service) -> bool:
    """Whether a spam filter sees the mail, which asks blocklists and greylists by itself."""
    return any(name in address for address in facts.milters(service) for name in SPAM_FILTERS)


CHECKS = (
    Check(
        "helo-required",
        Severity.WARNING,
        "Port 25 requires HELO or EHLO (`smtpd_helo_required = yes`)",
        "Without it, a client skips every restriction on its name.",
        helo_required,
    ),
    Check(
        "helo-restrictions",
        Severity.WARNING,
        "Port 25 refuses names that no server has (`reject_invalid_helo_hostname`, `reject_non_fqdn_helo_hostname`)",
        "Much spam comes from programs that greet with a random word.",
        helo,
    ),
    Check(
        "sender-restrictions",
        Severity.WARNING,
        "Port 25 refuses senders without a domain that exists (`reject_non_fqdn_sender`,"
        " `reject_unknown_sender_domain`)",
        "Nobody can answer them, and their bounces stay in the queue.",
        sender,
    ),
    Check(
        "recipient-restrictions",
        Severity.WARNING,
        "Port 25 refuses recipients without a domain that exists (`reject_non_fqdn_recipient`,"
        " `reject_unknown_recipient_domain`)",
        "Such mail is accepted, cannot be delivered, and bounces to somebody who may not have sent it.",
        recipient,
    ),
    Check(
        "unknown-recipients",
        Severity.WARNING,
        "Recipients that do not exist are refused at once (`smtpd_reject_unlisted_recipient`, with"
        " `local_recipient_maps`, `virtual_mailbox_maps` and `relay_recipient_maps`; or"
        " `reject_unverified_recipient`)",
        "Otherwise the host sends bounces to forged senders, and ends on blocklists for it.",
        unknown_recipients,
    ),
    Check(
        "vrfy-disabled",
        Severity.NOTICE,
        "VRFY is off (`disable_vrfy_command = yes`)",
        "It tells spammers which addresses exist, without a message being sent.",
        vrfy,
    ),
    Check(
        "banner-version",
        Severity.NOTICE,
        "The greeting does not tell the version (`smtpd_banner`)",
        "It tells which known faults to try.",
        banner,
    ),
    Check(
        "blocklists",
        Severity.NOTICE,
        "Port 25 asks a blocklist about clients (`reject_rbl_client`, `postscreen_dnsbl_sites`, or rspamd)",
        "It keeps most spam out before a byte of it is read.",
        blocklists,
    ),
    Check(
        "greylisting",
        Severity.NOTICE,
        "New clients are asked to come back (postgrey, postscreen's tests after the greeting, or rspamd)",
        "Much spam is tried only once.",
        greylisting,
    ),
)
