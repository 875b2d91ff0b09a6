"""mailguard: may this message claim the identity that it claims, and why.

    from mailguard import authenticate
    outcome = authenticate(raw, ip="192.0.2.10", helo="mx.example.com", mail_from="a@example.com")
    print(outcome.explain().text())

`authenticate` judges a whole message, `verify_dkim`, `check_spf`, `evaluate_dmarc` and `check_dane` do a part alone,
and `sign_dkim` signs. docs/library.md shows each. Here are the public names, re-exported; importing this needs
neither libmilter nor the command line's packages.
"""

from mailguard.authserv_id import OwnIds
from mailguard.dane.discover import InsecureMx
from mailguard.dane.record import CertificateUsage, MatchingType, Selector, parse_tlsa
from mailguard.dane.result import (
    DanePolicy,
    DaneStatus,
    HostOutcome,
    HostPolicy,
    HostReason,
    TlsaReason,
    TlsaResult,
    TlsaStatus,
)
from mailguard.dane.verify import tlsa_of, verify_tlsa
from mailguard.dkim.canonical import BodyDigests, BodyRequest, Canonicalization
from mailguard.dkim.result import DkimReason, DkimResult, DkimStatus
from mailguard.dkim.sign import SigningRules
from mailguard.dkim.signing_key import KeyCheck, KeyPermissions, SigningKey
from mailguard.dkim.verify import BodyLengthRule, VerifyRules
from mailguard.dmarc.record import AlignmentMode, DmarcPolicy, DmarcRecord
from mailguard.dmarc.result import Aligned, Alignment, DmarcReason, DmarcStatus, DmarcVerdict
from mailguard.dmarc.suffixes import PublicSuffixes
from mailguard.dns.answers import Answers, Resolver, Unanswered
from mailguard.dns.live import ResolverConfig, open_resolver
from mailguard.dns.question import MX, TLSA, Answer, Dnssec, Question, RecordType, Status
from mailguard.dns.validation import only_trusted
from mailguard.dns.zone import ZoneResolver
from mailguard.domain import Domain
from mailguard.envelope import Envelope
from mailguard.errors import (
    ConfigError,
    DomainError,
    KeyFileError,
    MailguardError,
    MissingExtraError,
    SigningRefused,
    ZoneError,
)
from mailguard.evidence import Evidence
from mailguard.explain import Explanation
from mailguard.inbound import InboundRules, Judged
from mailguard.iprev import IprevResult, IprevStatus
from mailguard.message import HeaderField, MalformedReason, Message
from mailguard.outcome import Outcome
from mailguard.pipeline import (
    authenticate,
    authenticate_async,
    check_dane,
    check_spf,
    evaluate_dmarc,
    sign_dkim,
    verify_dkim,
)
from mailguard.policy import (
    Decision,
    DomainPolicy,
    Finding,
    Override,
    OverrideKind,
    Policy,
    Refusal,
    TrustedSource,
    decide,
)
from mailguard.rule import Disposition, Mode, Rule
from mailguard.spf.result import SpfIdentity, SpfReason, SpfResult, SpfStatus

__all__ = [
    "MX",
    "TLSA",
    "Aligned",
    "Alignment",
    "AlignmentMode",
    "Answer",
    "Answers",
    "BodyDigests",
    "BodyLengthRule",
    "BodyRequest",
    "Canonicalization",
    "CertificateUsage",
    "ConfigError",
    "DanePolicy",
    "DaneStatus",
    "Decision",
    "Disposition",
    "DkimReason",
    "DkimResult",
    "DkimStatus",
    "DmarcPolicy",
    "DmarcReason",
    "DmarcRecord",
    "DmarcStatus",
    "DmarcVerdict",
    "Dnssec",
    "Domain",
    "DomainError",
    "DomainPolicy",
    "Envelope",
    "Evidence",
    "Explanation",
    "Finding",
    "HeaderField",
    "HostOutcome",
    "HostPolicy",
    "HostReason",
    "InboundRules",
    "InsecureMx",
    "IprevResult",
    "IprevStatus",
    "Judged",
    "KeyCheck",
    "KeyFileError",
    "KeyPermissions",
    "MailguardError",
    "MalformedReason",
    "MatchingType",
    "Message",
    "MissingExtraError",
    "Mode",
    "Outcome",
    "Override",
    "OverrideKind",
    "OwnIds",
    "Policy",
    "PublicSuffixes",
    "Question",
    "RecordType",
    "Refusal",
    "Resolver",
    "ResolverConfig",
    "Rule",
    "Selector",
    "SigningKey",
    "SigningRefused",
    "SigningRules",
    "SpfIdentity",
    "SpfReason",
    "SpfResult",
    "SpfStatus",
    "Status",
    "TlsaReason",
    "TlsaResult",
    "TlsaStatus",
    "TrustedSource",
    "Unanswered",
    "VerifyRules",
    "ZoneError",
    "ZoneResolver",
    "authenticate",
    "authenticate_async",
    "check_dane",
    "check_spf",
    "decide",
    "evaluate_dmarc",
    "only_trusted",
    "open_resolver",
    "parse_tlsa",
    "sign_dkim",
    "tlsa_of",
    "verify_dkim",
    "verify_tlsa",
]
