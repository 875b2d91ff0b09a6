"""What `mailguard doctor` says of whom Postfix believes: where a message ends, and who a client is. Pure.

SMTP smuggling is judged by the checks of `mailguard audit`, which also looks at how wide mynetworks is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network

from mailguard.audit.facts import HostFacts
from mailguard.audit.finding import Found
from mailguard.audit.postfix import Postfix, Service
from mailguard.audit.relay import networks_of
from mailguard.audit.restriction_list import words
from mailguard.audit.smuggling import BARE_NEWLINE, CHECKS, PIPELINING
from mailguard.config import Config
from mailguard.explain.explanation import Explanation
from mailguard.scorecard.card import Mark, card, finding

__all__ = ["own_clients_card", "proxy_card", "smuggling_card"]

# XCLIENT and XFORWARD: who may say that a message comes from somebody else.
HOST_LISTS = ("smtpd_authorized_xclient_hosts", "smtpd_authorized_xforward_hosts")
PROXY = "smtpd_upstream_proxy_protocol"
SCREEN_PROXY = "postscreen_upstream_proxy_protocol"
# Debian's main.cf has ::ffff:127.0.0.0/104 in mynetworks. Postfix knows such clients by their IPv4 address alone.
_MAPPED = IPv6Network("::ffff:0:0/96")
_OWN_CLIENTS = (
    "list those that send mail of yours, with your domains, in [[sign.networks]] (docs/postfix.md, Submission), or"
    " have them log in"
)


def smuggling_card(facts: HostFacts) -> Explanation:
    """Whether Postfix sees one message where another server sees one: what is smuggled in has that server's SPF."""
    found = []
    for check in CHECKS:
        # What is in main.cf is found for each service that it counts for.
        for each in dict.fromkeys(check.run(facts)):
            if isinstance(each, Found):
                advice = f"{'; '.join(each.commands)}; then postfix reload. mailguard audit says more"
                found.append(finding(Mark.PROBLEM, f"{each.place}: {each.what}. {check.why}", advice))
            else:
                found.append(finding(Mark.UNKNOWN, each.reason))
    shown = [(name, facts.postfix.value(name)) for name in (BARE_NEWLINE, PIPELINING) if facts.postfix.knows(name)]
    fine = "a message ends where every server sees its end"
    if not facts.postfix.public_services:
        fine = "no smtpd can be reached from outside"
    return card("SMTP smuggling", found or [finding(Mark.OK, fine)], facts=shown)


def proxy_card(facts: HostFacts) -> Explanation:
    """Who may name another client than itself: SPF and the networks of the configuration believe it."""
    found: list[Explanation] = []
    shown = []
    for place, name, value in _settings(facts.postfix):
        shown.append((f"{place}: {name}", value))
        found += _of_hosts(place, name, value) if name in HOST_LISTS else _of_proxy(facts.postfix, place, name, value)
    fine = "no host but this one" if shown else "no host"
    return card("who may speak for other clients", found or [finding(Mark.OK, fine)], facts=shown)


def _settings(postfix: Postfix) -> Iterator[tuple[str, str, str]]:
    """Where, the name and the value of each that is set; main.cf once for all services that have nothing else."""
    seen = set()
    for command, names in (("smtpd", (*HOST_LISTS, PROXY)), ("postscreen", (SCREEN_PROXY,))):
        places: tuple[Service | None, ...] = (None, *postfix.running(command))
        for service in places:
            for name in names:
                place = postfix.place(name, service)
                value = postfix.value(name, service)
                if value and (place, name) not in seen:
                    seen.add((place, name))
                    yield place, name, value


def _of_hosts(place: str, name: str, value: str) -> Iterator[Explanation]:
    hosts = tuple(each for each in words(value) if not _is_loopback(each))
    what = "XCLIENT" if name == HOST_LISTS[0] else "XFORWARD"
    own = tuple(each for each in words(value) if each not in hosts and not each.startswith("!"))
    if own and what == "XCLIENT":
        detail = (
            f"{place}: {what} is taken from {', '.join(own)}: every user of this host can take any address, and any"
            " login"
        )
        yield finding(Mark.NOTE, detail, f"take it out of {name} where others than the proxy run programs here")
    if not hosts:
        return
    told = "whoever has one of these addresses can take any other, and any login"
    if what == "XFORWARD":
        told = "they say in the log from where a message comes"
    tables = "; a table or a file may list more than it seems" if any(map(_is_table, hosts)) else ""
    detail = f"{place}: {what} is taken from {', '.join(hosts)}: {told}{tables}"
    yield finding(Mark.NOTE, detail, f"list only proxies of your own in {name}, or nothing")


def _of_proxy(postfix: Postfix, place: str, name: str, value: str) -> Iterator[Explanation]:
    command = "postscreen" if name == SCREEN_PROXY else "smtpd"
    services = [each for each in postfix.running(command) if place in ("main.cf", each.place)]
    reached = [each.place for each in services if each.kind == "inet" and _listens_outside(postfix, each)]
    if reached:
        detail = f"{', '.join(reached)}: {name} = {value}: who connects says which address he has, and all believe it"
        advice = f"let a firewall admit the proxy alone to it, or have it listen on loopback; else take {name} away"
        yield finding(Mark.NOTE, detail, advice)


def _listens_outside(postfix: Postfix, service: Service) -> bool:
    listens = (service.address,) if service.address else words(postfix.value("inet_interfaces", service))
    return not all(_is_loopback(each) for each in listens)


def own_clients_card(facts: HostFacts, config: Config, *, is_of_this_host: Callable[[str], bool]) -> Explanation:
    """Who may send without a login, and is a stranger to mailguard. What cannot be told of a table is left out."""
    postfix = facts.postfix
    listed = (*(each for rule in config.sign.networks for each in rule.networks), *config.policy.internal_networks)
    places: list[Service | None] = [None] if "mynetworks" in postfix.explicit else []
    places += [each for each in postfix.public_services if "mynetworks" in each.overrides]
    found = []
    for service in places:
        networks = [
            each for each in networks_of(facts, postfix.value("mynetworks", service)) if not isinstance(each, str)
        ]
        strangers = [
            str(each)
            for each in networks
            if not (each.is_loopback or any(_is_within(each, network) for network in (*listed, _MAPPED)))
            and not (each.num_addresses == 1 and is_of_this_host(str(each.network_address)))
        ]
        if strangers:
            detail = (
                f"{postfix.place('mynetworks', service)}: mynetworks lets {', '.join(strangers)} send without a"
                " login: that mail is judged as from outside, and not signed"
            )
            found.append(finding(Mark.NOTE, detail, _OWN_CLIENTS))
    return card("clients without a login", found or [finding(Mark.OK, "this host, and those that are listed")])


def _is_within(network: IPv4Network | IPv6Network, other: IPv4Network | IPv6Network) -> bool:
    if isinstance(network, IPv4Network):
        return isinstance(other, IPv4Network) and network.subnet_of(other)
    return isinstance(other, IPv6Network) and network.subnet_of(other)


def _is_loopback(host: str) -> bool:
    if host.startswith("!"):
        # It takes away, and gives nothing.
        return True
    if host in ("localhost", "loopback-only"):
        return True
    try:
        return ip_network(host.replace("[", "").replace("]", ""), strict=False).is_loopback
    except ValueError:
        return False


def _is_table(host: str) -> bool:
    return host.startswith("/") or (":" in host and host[:1].isalpha() and "[" not in host)
