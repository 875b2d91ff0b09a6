"""What a configuration says about judging mail from outside, as the values that inbound.py and policy.py take.

Reads the list of public suffixes where the configuration asks for it.
"""

from __future__ import annotations

from mailguard.config import Config
from mailguard.dkim.verify import BodyLengthRule, VerifyRules
from mailguard.dmarc.suffixes import PublicSuffixes
from mailguard.errors import ConfigError, MissingExtraError
from mailguard.inbound import InboundRules
from mailguard.policy import Policy

__all__ = ["inbound_rules", "policy_of"]


def inbound_rules(config: Config) -> InboundRules:
    """How mail is checked. Raises ConfigError for a list of public suffixes that cannot be used."""
    suffixes = None
    if config.dmarc.organizational_domain == "psl":
        try:
            suffixes = PublicSuffixes.load(config.dmarc.suffix_list)
        except MissingExtraError as error:
            raise ConfigError(f'dmarc.organizational_domain = "psl": {error}') from error
    return InboundRules(
        verifying=VerifyRules(
            max_signatures=config.verify.max_signatures,
            body_length=BodyLengthRule(config.verify.body_length),
        ),
        checks_helo=config.spf.check_helo,
        # A trusted name leads back to the client's address; a rule about the name needs it too.
        checks_iprev=config.results.iprev
        or any(rule.ptr for rule in config.trusted)
        or config.policy.iprev.fail not in (None, "accept"),
        receiver=config.authserv_id,
        suffixes=suffixes,
        internal_networks=config.policy.internal_networks,
    )


def policy_of(config: Config) -> Policy:
    """What becomes of it."""
    return Policy(
        mode=config.mode,
        actions=config.policy.actions(),
        domains=config.policy.domain_policies(),
        trusted=tuple(rule.source() for rule in config.trusted),
    )
