"""What a configuration says about judging mail, as the values that inbound.py, policy.py and submission.py take.

Reads the list of public suffixes where the configuration asks for it.
"""

from __future__ import annotations

from mailguard.config import Config
from mailguard.dkim.verify import BodyLengthRule, VerifyRules
from mailguard.dmarc.record import AlignmentMode
from mailguard.dmarc.suffixes import PublicSuffixes
from mailguard.errors import ConfigError, MissingExtraError
from mailguard.inbound import InboundRules
from mailguard.policy import Policy
from mailguard.submission import SubmissionRules

__all__ = ["inbound_rules", "policy_of", "submission_rules"]


def inbound_rules(config: Config) -> InboundRules:
    """How mail is checked. Raises ConfigError for a list of public suffixes that cannot be used."""
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
        suffixes=_suffixes(config),
        counts_permissive_spf=config.dmarc.permissive_spf_counts,
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


def submission_rules(config: Config) -> SubmissionRules | None:
    """Under which names our own users may write; None where no source says so. Raises as `inbound_rules`."""
    senders = config.senders
    if not senders.sources:
        return None
    return SubmissionRules(
        mode=config.mode,
        actions=senders.actions.dispositions(),
        alignment=AlignmentMode(senders.alignment),
        suffixes=_suffixes(config) if senders.actions.alignment != "off" else None,
    )


def _suffixes(config: Config) -> PublicSuffixes | None:
    if config.dmarc.organizational_domain != "psl":
        return None
    try:
        return PublicSuffixes.load(config.dmarc.suffix_list)
    except MissingExtraError as error:
        raise ConfigError(f'dmarc.organizational_domain = "psl": {error}') from error
