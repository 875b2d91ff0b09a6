"""mailguard: may this message claim the identity that it claims, and why.

The public names, re-exported. Importing this needs neither libmilter nor the command line's packages.
"""

from mailguard.dkim.result import DkimReason, DkimResult, DkimStatus
from mailguard.dkim.sign import SigningRules
from mailguard.dkim.signing_key import SigningKey
from mailguard.dkim.verify import VerifyRules
from mailguard.dns.answers import Answers, Resolver, Unanswered
from mailguard.dns.live import open_resolver
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
    "DkimReason",
    "DkimResult",
    "DkimStatus",
    "Dnssec",
    "Domain",
    "Envelope",
    "HeaderField",
    "MailguardError",
    "MalformedReason",
    "Message",
    "Question",
    "Resolver",
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
