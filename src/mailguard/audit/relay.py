"""Who may send mail to elsewhere through this host. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import chain, pairwise

from mailguard.audit.access_table import inline_permits
from mailguard.audit.facts import HostFacts
from mailguard.audit.finding import Check, Found, Severity, Unclear
from mailguard.audit.postfix import Service
from mailguard.audit.restriction_list import BARRIERS, effective, reaches, stops_relaying, words

__all__ = ["CHECKS", "networks_of"]

LISTS = ("smtpd_relay_restrictions", "smtpd_recipient_restrictions")
OPEN_DOORS = frozenset({"permit_naked_ip_address", "permit_tls_all_clientcerts"})
"""What every stranger can do."""
LISTED_BY_OTHERS = frozenset({"permit_dnswl_client", "permit_rhswl_client"})
"""Known senders of mail, who are not this host's own users."""
FORGED = frozenset(
    {"check_helo_access", "check_sender_access", "check_reverse_client_hostname_access"}
    | {f"check_{name}_{kind}_access" for name in ("helo", "sender") for kind in ("a", "mx", "ns")}
)
"""What looks up what a client says of itself, or has in its own DNS."""
POLICY_SERVICES = ("spf", "grey", "10023", "quota", "12340", "10031", "dovecot")
"""How the addresses of those read that answer DUNNO at best."""
# A network of public addresses that is wider than this is hardly one host's own.
MIN_PUBLIC_PREFIX = {4: 24, 6: 48}
LOOPBACK = "127.0.0.0/8 [::1]/128"
# RFC 6598 §7: not routed, as little as private addresses.
SHARED = IPv4Network("100.64.0.0/10")


def open_relay(facts: HostFacts) -> Iterator[Found | Unclear]:
    """At least one of the two lists must have a barrier: both are asked, and either can refuse.

    And at least one of them nothing before its barrier that a stranger gets past by.
    """
    postfix = facts.postfix
    for service in postfix.public_services:
        yield from _every_domain(facts, service)
        lists = [name for name in LISTS if stops_relaying(facts.restrictions(name, service))]
        ways = [tuple(_ways_past(facts, facts.restrictions(name, service))) for name in lists]
        if not all(ways):
            continue
        certain = [[text for kind, text in way if kind is Found] for way in ways]
        if not all(certain):
            doubts = dict.fromkeys(text for way in ways for kind, text in way if kind is Unclear)
            yield Unclear(f"{service.place}: whether strangers can send to any domain depends on {', '.join(doubts)}")
            continue
        shown = "; ".join(postfix.shown(name, service) for name in LISTS)
        past = f", past reject_unauth_destination by {', '.join(dict.fromkeys(chain(*certain)))}" if certain else ""
        wanted = "permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination"
        command = postfix.setting("smtpd_relay_restrictions", wanted, service)
        yield Found(service.place, f"strangers can send to any domain{past}: {shown}", (command,))


def _every_domain(facts: HostFacts, service: Service) -> Iterator[Found]:
    """`reject_unauth_destination` lets relay_domains in, and a table that is `static:` has every domain."""
    postfix = facts.postfix
    domains, recipients = (words(postfix.value(name, service)) for name in ("relay_domains", "relay_recipient_maps"))
    named = [each for each in domains if not _has_all(each)]
    if len(named) == len(domains) or (recipients and not any(map(_has_all, recipients))):
        return
    before = ("permit", "permit_auth_destination")
    if not any(reaches(facts.restrictions(name, service), ("reject", "defer"), before=before) for name in LISTS):
        what = f"strangers can send to any domain: {postfix.shown('relay_domains', service)}"
        yield Found(service.place, what, (postfix.setting("relay_domains", " ".join(named), service),))


def _has_all(table: str) -> bool:
    return table.removeprefix("proxy:").startswith("static:")


def _ways_past(facts: HostFacts, restrictions: Iterable[str]) -> Iterator[tuple[type[Found | Unclear], str]]:
    """What stands before the barrier and lets strangers in, or may do so: as a finding or a doubt, and its words."""
    # `warn_if_reject` in front of a table takes away what it rejects, and not its OK.
    found = tuple(effective(restrictions, permitting=("permit", "check_")))
    doors = OPEN_DOORS if facts.postfix.value("permit_mx_backup_networks") else OPEN_DOORS | {"permit_mx_backup"}
    for word, after in pairwise((*found, "")):
        if word in BARRIERS:
            return
        if word in doors:
            yield Found, word
        elif word in LISTED_BY_OTHERS:
            yield Found, f"{word} {after}"
        elif word in FORGED or (word.startswith("check_") and after.startswith("static:")):
            table = after.removeprefix("proxy:")
            permits = inline_permits(table) if inline_permits(table) is not None else facts.access.get(table)
            if permits is not False:
                yield Unclear if permits is None else Found, f"{word} {after}"
        elif word == "check_policy_service" and not any(name in after for name in POLICY_SERVICES):
            yield Unclear, f"{word} {after}"


def trusted_networks(facts: HostFacts) -> Iterator[Found | Unclear]:
    """Each network in mynetworks, and in the mynetworks that a service sets."""
    postfix = facts.postfix
    places: list[Service | None] = [None]
    places += [each for each in postfix.public_services if "mynetworks" in each.overrides]
    for service in places:
        value = postfix.value("mynetworks", service)
        wide = [each for each in networks_of(facts, value) if isinstance(each, str) or _is_wide(each)]
        yield from (Unclear(each) for each in wide if isinstance(each, str))
        shown = [str(each) for each in wide if not isinstance(each, str)]
        if shown:
            place = service.place if service else "main.cf"
            what = f"mynetworks trusts {', '.join(shown)}"
            narrow = [word for word in words(value) if not _is_wide_word(word)]
            if narrow == list(words(value)):
                yield Found(place, what, ("# take wide ones out of the table that mynetworks names",))
            else:
                yield Found(place, what, (postfix.setting("mynetworks", " ".join(narrow) or LOOPBACK, service),))


def neighbours(facts: HostFacts) -> Iterator[Found]:
    """mynetworks as Postfix makes it from the host's own addresses."""
    postfix = facts.postfix
    style = postfix.value("mynetworks_style")
    if "mynetworks" not in postfix.explicit and style in ("subnet", "class"):
        what = f"mynetworks_style = {style} trusts {postfix.value('mynetworks')}"
        yield Found("main.cf", what, (postfix.setting("mynetworks", LOOPBACK),))


def submission_for_logins(facts: HostFacts) -> Iterator[Found]:
    """Some list must refuse whoever has not logged in."""
    lists = (
        "smtpd_client_restrictions",
        "smtpd_helo_restrictions",
        "smtpd_sender_restrictions",
        "smtpd_relay_restrictions",
        "smtpd_recipient_restrictions",
    )
    for service in facts.postfix.submission_services:
        if any(reaches(facts.restrictions(name, service), ("reject", "defer")) for name in lists):
            continue
        command = facts.postfix.service_setting(
            "smtpd_relay_restrictions", "permit_sasl_authenticated,reject", service
        )
        yield Found(service.place, "no restriction refuses a client that has not logged in", (command,))


def untrusted_routing(facts: HostFacts) -> Iterator[Found]:
    """user%elsewhere@here and its like."""
    postfix = facts.postfix
    for service in postfix.public_services:
        if postfix.is_on("allow_untrusted_routing", service):
            command = postfix.setting("allow_untrusted_routing", "no", service)
            yield Found(
                postfix.place("allow_untrusted_routing", service), "allow_untrusted_routing = yes", (command,)
            )


def xclient(facts: HostFacts) -> Iterator[Found]:
    """XCLIENT lets a client claim to be another one, and to have logged in."""
    postfix = facts.postfix
    for service in postfix.public_services:
        hosts = words(postfix.value("smtpd_authorized_xclient_hosts", service))
        foreign = [each for each in hosts if not _is_own(each)]
        if foreign:
            place = postfix.place("smtpd_authorized_xclient_hosts", service)
            own = ", ".join(each for each in hosts if _is_own(each))
            command = postfix.setting("smtpd_authorized_xclient_hosts", own, service)
            yield Found(place, f"smtpd_authorized_xclient_hosts names {', '.join(foreign)}", (command,))


def networks_of(facts: HostFacts, value: str) -> Iterator[IPv4Network | IPv6Network | str]:
    """The networks of a list; a text says what cannot be told of a part."""
    for word in words(value):
        kind, colon, path = word.rpartition(":/")
        if word.startswith("!"):
            continue
        if word.startswith("static:"):
            # It has an answer for every address.
            yield from (ip_network("0.0.0.0/0"), ip_network("::/0"))
            continue
        if "{" in word:
            yield from filter(None, map(_network, re.split(r"[\s,{}=]+", word)))
            continue
        if colon or word.startswith("/"):
            name = f"/{path}" if colon else word
            content = facts.networks.get(name, f"{name} was not read")
            if isinstance(content, str) or kind not in ("", "cidr"):
                yield f"mynetworks names {word}: {content if isinstance(content, str) else 'no plain text'}"
                continue
            yield from filter(None, (_network(each) for each in content))
        else:
            found = _network(word)
            if found is not None:
                yield found
            elif ":" in word:
                yield f"mynetworks names {word}: it is not read"


def _network(word: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(word.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        return None


def _is_wide_word(word: str) -> bool:
    network = _network(word)
    return word.startswith("static:") or "{" in word or (network is not None and _is_wide(network))


def _is_wide(network: IPv4Network | IPv6Network) -> bool:
    is_private = network.is_private or network.is_link_local or network.is_loopback
    is_private = is_private or (network.version == 4 and network.subnet_of(SHARED))
    return not is_private and network.prefixlen < MIN_PUBLIC_PREFIX[network.version]


def _is_own(word: str) -> bool:
    network = _network(word)
    return word == "localhost" or (network is not None and (network.is_loopback or network.is_private))


CHECKS = (
    Check(
        "open-relay",
        Severity.CRITICAL,
        "`smtpd_relay_restrictions` or `smtpd_recipient_restrictions` refuses mail of strangers for other domains"
        " (`reject_unauth_destination`)",
        "An open relay is found within hours, used for spam, and put on every blocklist.",
        open_relay,
    ),
    Check(
        "trusted-networks",
        Severity.CRITICAL,
        "`mynetworks` holds no wide range of public addresses (wider than /24, or /48 for IPv6)",
        "Whoever has an address in it may send anything to anybody, without a login.",
        trusted_networks,
    ),
    Check(
        "neighbours",
        Severity.WARNING,
        "`mynetworks` is set, rather than made from the subnets of the host's interfaces",
        "In a data centre the subnet belongs to strangers, who could then relay through this host.",
        neighbours,
    ),
    Check(
        "submission-for-logins",
        Severity.WARNING,
        "Submission refuses every client that has not logged in (`permit_sasl_authenticated, reject`)",
        "Otherwise it is a second way in for mail of strangers, past what guards port 25.",
        submission_for_logins,
    ),
    Check(
        "untrusted-routing",
        Severity.WARNING,
        "`allow_untrusted_routing` is off",
        "With user%elsewhere@here, strangers make a host that trusts this one forward their mail.",
        untrusted_routing,
    ),
    Check(
        "xclient",
        Severity.CRITICAL,
        "`smtpd_authorized_xclient_hosts` names only this host and private addresses",
        "With XCLIENT a client says for itself which address it has and who has logged in.",
        xclient,
    ),
)
