"""mailguard: may this message claim the identity that it claims, and why.

The public names, re-exported. Importing this needs neither libmilter nor the command line's packages.
"""

from mailguard.dkim.canonical import BodyDigests, BodyRequest, Canonicalization
from mailguard.dkim.result import DkimReason, DkimResult, DkimStatus
from mailguard.dkim.sign import SigningRules
from mailguard.dkim.signing_key import KeyCheck, KeyPermissions, SigningKey
from mailguard.dkim.verify import BodyLengthRule, VerifyRules
from mailguard.dns.answers import Answers, Resolver, Unanswered
from mailguard.dns.live import ResolverConfig, open_resolver
from mailguard.dns.question import Answer, Dnssec, Question, Status
from mailguard.dns.zone import ZoneResolver
from mailguard.domain import Domain
from mailguard.envelope import Envelope
from mailguard.errors import MailguardError, SigningRefused
from mailguard.message import HeaderField, MalformedReason, Message
from mailguard.pipeline import sign_dkim, verify_dkim

__all__ = [
    "Answer",
    "Answers",
    "BodyDigests",
    "BodyLengthRule",
    "BodyRequest",
    "Canonicalization",
    "DkimReason",
    "DkimResult",
    "DkimStatus",
    "Dnssec",
    "Domain",
    "Envelope",
    "HeaderField",
    "KeyCheck",
    "KeyPermissions",
    "MailguardError",
    "MalformedReason",
    "Message",
    "Question",
    "Resolver",
    "ResolverConfig",
    "SigningKey",
    "SigningRefused",
    "SigningRules",
    "Status",
    "Unanswered",
    "VerifyRules",
    "ZoneResolver",
    "open_resolver",
    "sign_dkim",
    "verify_dkim",
]
