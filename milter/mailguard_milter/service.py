"""Service: all that the sessions of a worker share, made before the workers are forked.

Immutable but for the key ring's cache; safe to share between threads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from mailguard.authresults import OwnIds
from mailguard.config import Config, Mode
from mailguard.dkim.canonical import Canonicalization
from mailguard.dkim.sign import SigningRules
from mailguard.dkim.signing_key import KeyCheck
from mailguard.dkim.verify import BodyLengthRule, VerifyRules
from mailguard_milter.keyring import KeyRing

__all__ = ["Service"]


@dataclass(frozen=True, slots=True)
class Service:
    """A configuration, ready for use."""

    config: Config
    key_ring: KeyRing
    signing: SigningRules
    verifying: VerifyRules
    own_ids: OwnIds
    stripped: frozenset[bytes] = field(default_factory=frozenset)
    """Lower-case names of header fields that are removed from mail that is verified, whatever they say."""

    @classmethod
    def open(cls, config: Config, *, check: KeyCheck = KeyCheck.QUICK) -> Self:
        """Load the keys. Raises KeyFileError."""
        header, _, body = config.sign.canonicalization.partition("/")
        return cls(
            config=config,
            key_ring=KeyRing(config, check=check),
            signing=SigningRules(
                header_canonicalization=Canonicalization(header),
                body_canonicalization=Canonicalization(body),
                lifetime_s=config.sign.lifetime_days * 86_400,
            ),
            verifying=VerifyRules(
                max_signatures=config.verify.max_signatures,
                body_length=BodyLengthRule(config.verify.body_length),
            ),
            own_ids=OwnIds([config.authserv_id]),
            stripped=frozenset(name.lower().encode("ascii") for name in config.verify.strip_headers),
        )

    @property
    def enforcing(self) -> bool:
        return self.config.mode is Mode.ENFORCE
