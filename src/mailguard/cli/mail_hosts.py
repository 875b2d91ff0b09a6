"""The hosts that take a domain's mail, for `mailguard dns`: as named, or as the DNS has them now."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import click

from mailguard.dns.answers import Resolver
from mailguard.dns.live import ResolverConfig
from mailguard.dns.question import Dnssec, Question, RecordType
from mailguard.dns.validation import ValidationStatus, check_validation
from mailguard.domain import Domain
from mailguard.errors import DomainError
from mailguard.pipeline import LOOKUP_TIME_S
from mailguard.records.choices import MailHost

__all__ = ["NoAnswer", "host_name", "mail_hosts", "with_certificates"]

# The order in which a host of several preferences is named.
PREFERENCE_STEP = 10


class NoAnswer(Exception):
    """The DNS did not say which hosts there are. The text says why, and what to do."""


def host_name(name: str) -> Domain:
    """Raises click.UsageError."""
    try:
        return Domain.parse(name.removesuffix("."))
    except DomainError as error:
        raise click.UsageError(f"{name!r} is not the name of a host: {error}") from None


def mail_hosts(domain: Domain, named: Sequence[str], resolver: Resolver) -> tuple[tuple[MailHost, ...], bool]:
    """The hosts, and whether the domain takes mail at all. Raises NoAnswer, and click.UsageError for a bad name."""
    if named:
        hosts = [MailHost(name=host_name(name), preference=PREFERENCE_STEP * at) for at, name in enumerate(named, 1)]
        return tuple(hosts), True
    question = Question(domain, RecordType.MX)
    live = resolver.resolve([question], deadline=time.monotonic() + LOOKUP_TIME_S)[question]
    if live.has_failed:
        why = live.detail or live.status.value
        raise NoAnswer(f"the MX records of {domain} could not be looked up: {why}; try again, or name them with --mx")
    exchanges = sorted(live.exchanges())
    hosts = [MailHost(name=host_name(mx.exchange), preference=mx.preference) for mx in exchanges if mx.exchange]
    # RFC 7505 §3: "." alone says that the domain takes no mail.
    return tuple(hosts), bool(hosts) or not exchanges


def with_certificates(
    hosts: Sequence[MailHost], digests: Sequence[bytes], resolver: Resolver, config: ResolverConfig
) -> tuple[MailHost, ...]:
    """The hosts with the digests of their certificates' keys, and whether their names are signed."""
    deadline = time.monotonic() + LOOKUP_TIME_S
    questions = [Question(host.name, RecordType.A) for host in hosts]
    answers = resolver.resolve(questions, deadline=deadline)
    said = [answers[question].dnssec for question in questions]
    unsigned: bool | None = False
    if Dnssec.INSECURE in said:
        # A resolver that does not validate, or whose word does not count, calls everything insecure.
        validates = check_validation(config, deadline=deadline).status is ValidationStatus.VALIDATES
        unsigned = False if validates else None
    signed = {Dnssec.SECURE: True, Dnssec.INSECURE: unsigned}
    return tuple(
        replace(host, key_digests=digests, is_signed=signed.get(dnssec))
        for host, dnssec in zip(hosts, said, strict=True)
    )
