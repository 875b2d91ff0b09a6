"""Service: all that the sessions of a worker share, made before the workers are forked.

Immutable but for the key ring's cache; safe to share between threads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Self

from mailguard.authserv_id import OwnIds
from mailguard.config import Config
from mailguard.dkim.canonical import Canonicalization
from mailguard.dkim.sign import SigningRules
from mailguard.dkim.signing_key import KeyCheck
from mailguard.inbound import InboundRules
from mailguard.judging import inbound_rules, policy_of, submission_rules
from mailguard.policy import Policy
from mailguard.rule import Mode
from mailguard.submission import SubmissionRules
from mailguard_milter.keyring import KeyRing

__all__ = ["POLICY_FIELD_NAME", "Service"]

POLICY_FIELD_NAME = "X-Mailguard-Policy"
"""Marks a message that a rule applies to. What comes from outside under this name is removed."""


@dataclass(frozen=True, slots=True)
class Service:
    """A configuration, ready for use."""

    config: Config
    key_ring: KeyRing
    signing: SigningRules
    judging: InboundRules
    policy: Policy
    own_ids: OwnIds
    version: str
    """Of mailguard, for traces."""
    submission: SubmissionRules | None = None
    """Under which names our own users may write; None: under any."""
    stripped: frozenset[bytes] = field(default_factory=frozenset)
    """Lower-case names of header fields that are removed from mail that is verified, whatever they say."""

    @classmethod
    def open(cls, config: Config, *, check: KeyCheck = KeyCheck.QUICK) -> Self:
        """Load the keys, and the list of public suffixes where it is used. Raises ConfigError and its kin."""
        header, _, body = config.sign.canonicalization.partition("/")
        return cls(
            config=config,
            key_ring=KeyRing(config, check=check),
            signing=SigningRules(
                header_canonicalization=Canonicalization(header),
                body_canonicalization=Canonicalization(body),
                lifetime_s=config.sign.lifetime_days * 86_400,
            ),
            judging=inbound_rules(config),
            policy=policy_of(config),
            own_ids=OwnIds([config.authserv_id]),
            version=version("mailguard-milter"),
            submission=submission_rules(config),
            stripped=frozenset(
                name.lower().encode("ascii") for name in (*config.verify.strip_headers, POLICY_FIELD_NAME)
            ),
        )

    @property
    def enforcing(self) -> bool:
        return self.config.mode is Mode.ENFORCE
