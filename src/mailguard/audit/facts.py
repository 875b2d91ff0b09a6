"""All that the checks look at, gathered once. Pure: values, and what can be told from them alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from mailguard.audit.postfix import Postfix, Service
from mailguard.audit.restriction_list import effective, expanded, words

__all__ = ["CertificateFacts", "FileFacts", "HostFacts", "MailguardFacts", "TableFacts"]

RESTRICTION_LISTS = (
    "smtpd_client_restrictions",
    "smtpd_helo_restrictions",
    "smtpd_sender_restrictions",
    "smtpd_relay_restrictions",
    "smtpd_recipient_restrictions",
    "smtpd_data_restrictions",
    "smtpd_end_of_data_restrictions",
)


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A file that is there."""

    mode: int
    """The permission bits."""
    uid: int
    gid: int
    holds_key: bool | None = None
    """Whether a private key is in it; None if it could not be read."""
    group: str = ""
    """The name of the group; empty if it has none."""


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """The server's own certificates in a file, mostly one. Times are POSIX seconds."""

    not_before: float
    not_after: float
    names: tuple[str, ...]
    """The DNS names in it, in lower case."""
    begins: str
    ends: str
    """The same two times as dates."""


@dataclass(frozen=True, slots=True)
class TableFacts:
    """A table of Postfix's that is in a database: what its file says of the access."""

    kind: str
    """`mysql`, `pgsql` or `ldap`."""
    user: str
    has_password: bool


@dataclass(frozen=True, slots=True)
class MailguardFacts:
    """What mailguard's own configuration says."""

    mode: str
    sender_sources: tuple[str, ...]
    listeners: Mapping[str, str]
    """Their roles, by their addresses."""
    keeps_senders_back: bool = True
    """Whether a login does not get through under a reverse path or a From that it may not use."""


@dataclass(frozen=True, slots=True)
class HostFacts:
    """One mail host, at one time. Paths are as the configuration names them, whatever root they were read under."""

    postfix: Postfix
    now: float
    """POSIX seconds."""
    files: Mapping[str, FileFacts | str]
    """Every file that Postfix's configuration names and a check asks for; a text says why nothing is known of it."""
    certificates: Mapping[str, CertificateFacts | str]
    """By the file; a text says what is wrong with it."""
    tables: Mapping[str, TableFacts | str]
    """The files of database tables."""
    networks: Mapping[str, tuple[str, ...] | str]
    """The tables of networks in mynetworks: the first word of each line."""
    programs: frozenset[str]
    """Which of those that the checks ask for are installed."""
    settings: Mapping[str, tuple[str, ...]]
    """The lines, without comments, of the configuration of other programs, by the program: `unbound`."""
    nameservers: tuple[str, ...]
    """Of /etc/resolv.conf."""
    mailguard: MailguardFacts | None
    """None if mailguard is not configured on this host, or its configuration cannot be read."""
    mailguard_problem: str = ""
    """Why its configuration cannot be read."""
    access: Mapping[str, bool] = field(default_factory=dict)
    """Of the tables of check_..._access that could be read, whether an entry permits; by their names without
    `proxy:`, as `hash:/etc/postfix/senders`."""

    def restrictions(self, name: str, service: Service) -> tuple[str, ...]:
        """The words of one list of restrictions that holds in the service."""
        names = words(self.postfix.value("smtpd_restriction_classes", service))
        classes = {each: self.postfix.value(each, service) for each in names}
        return expanded(self.postfix.value(name, service), classes)

    def all_restrictions(self, service: Service) -> frozenset[str]:
        """What has an effect in any of the lists."""
        lists = (self.restrictions(name, service) for name in RESTRICTION_LISTS)
        return frozenset(word for each in lists for word in effective(each))

    def policy_services(self, service: Service) -> Iterator[str]:
        """The address of each service that check_policy_service names."""
        for name in RESTRICTION_LISTS:
            found = tuple(effective(self.restrictions(name, service)))
            yield from (after for word, after in pairwise(found) if word == "check_policy_service")

    def milters(self, service: Service) -> tuple[str, ...]:
        """The milters that mail through this service passes, each as it stands there."""
        if "no_milters" in words(self.postfix.value("receive_override_options", service)):
            return ()
        return words(self.postfix.value("smtpd_milters", service))
