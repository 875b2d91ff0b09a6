"""Transaction: what is known of one message while its events arrive, and the roles it may take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import chain, repeat
from operator import itemgetter

from mailguard.authresults import FIELD_KEY
from mailguard.dkim.canonical import BodyDigests
from mailguard.dkim.signing_key import SigningKey
from mailguard.envelope import Envelope
from mailguard.inbound import InboundPlan
from mailguard.message import MAX_FIELDS, MAX_HEADER_BYTES, HeaderField, Message
from mailguard.spf.identity import Sender, Unchecked
from mailguard.submission import SubmissionPlan
from mailguard_milter.actions import DeleteHeader
from mailguard_milter.arrival import Arrival
from mailguard_milter.long_lines import BodyLines
from mailguard_milter.service import Service

__all__ = ["Role", "Transaction"]

CRLF = b"\r\n"
# A number: to look for octets in octets, Python makes an error first and drops it.
_LF = ord("\n")
# Of those beyond the bounds of a header. Postfix looks for each field that is deleted from the start of the header:
# 1,000 behind 1 MB of short fields take 8 s, as many within the bounds 0.1 s.
MAX_DELETIONS_BEYOND = 10


class Role(Enum):
    """What is done with a message."""

    SIGN = "sign"
    VERIFY = "verify"
    NONE = "none"
    """On a listener that only signs, a message that it must not sign."""


NO_ENVELOPE = Envelope(client_ip=None, helo=b"", mail_from=b"")


class _Unhashed(BodyDigests):
    """For a body whose digests nobody asks for. It keeps nothing, so that one serves every message."""

    def __init__(self) -> None:
        super().__init__(())

    def update(self, chunk: bytes) -> None:
        """Drop it."""

    def finish(self) -> None:
        """Nothing began."""


UNHASHED = _Unhashed()


@dataclass(slots=True)
class Transaction:
    """One message. A new one begins with each MAIL."""

    envelope: Envelope = NO_ENVELOPE
    warning: str = ""
    has_recipient: bool = False
    sender: Sender | Unchecked | None = None
    """The reverse path, once it has been read."""
    fields: list[HeaderField] = field(default_factory=list)
    header_bytes: int = 0
    counts: dict[bytes, int] = field(default_factory=dict)
    """How many fields of each name that may be deleted have come."""
    forged: list[DeleteHeader] = field(default_factory=list)
    """Authentication-Results fields that claim to be ours, and all that stand beyond the bounds of a header."""
    listed: list[DeleteHeader] = field(default_factory=list)
    """Fields that the configuration strips."""
    deletions_beyond: int = 0
    """How many fields are to be deleted that stand beyond the bounds of a header."""
    message: Message | None = None
    """Set at the end of the header."""
    role: Role = Role.VERIFY
    keys: tuple[SigningKey, ...] = ()
    key_error: str = ""
    unsigned_because: str = ""
    arrival: Arrival | None = None
    """What keeps a signature back: what was found when the message came in."""
    submission: SubmissionPlan | None = None
    """Of our own users' mail, where it is looked at under which names they write."""
    plan: InboundPlan | None = None
    digests: BodyDigests = UNHASHED
    body_lines: BodyLines | None = None
    """Of a message that is to be signed."""

    @property
    def login(self) -> bytes | None:
        """The SASL login."""
        return self.envelope.login

    @property
    def exceeds_deletions(self) -> bool:
        """Whether there are more fields to delete than can be."""
        return self.deletions_beyond > MAX_DELETIONS_BEYOND

    def add_fields(self, fields: Sequence[tuple[bytes, bytes]], service: Service) -> None:
        """Take fields as libmilter hands them over: leading white space kept, folds with a bare LF."""
        # Every field of every message comes this way: all names at once, then all values.
        names = [*map(bytes.rstrip, map(itemgetter(0), fields), repeat(b" \t"))]
        keys = [*map(bytes.lower, names)]
        if FIELD_KEY in keys or not service.stripped.isdisjoint(keys):
            for place, (name, key, (_, value)) in enumerate(zip(names, keys, fields, strict=True), len(self.fields)):
                if key == FIELD_KEY or key in service.stripped:
                    is_beyond = place >= MAX_FIELDS or self.header_bytes > MAX_HEADER_BYTES
                    self._note_deletion(name, key, value, service, is_beyond=is_beyond)
        if len(self.fields) <= MAX_FIELDS and self.header_bytes <= MAX_HEADER_BYTES:
            # What came with the field that exceeds the bounds is kept, so that Message sees that they are exceeded.
            values = [_crlf(value) if _LF in value else value for _, value in fields]
            # In a third of the time that a named tuple's own constructor takes.
            self.fields += map(tuple.__new__, repeat(HeaderField), zip(names, values, repeat(b"")))
            self.header_bytes += sum(map(len, chain.from_iterable(fields)))

    def _note_deletion(self, name: bytes, key: bytes, value: bytes, service: Service, *, is_beyond: bool) -> None:
        """RFC 8601 §5: what claims to be ours came from outside and is removed at the end."""
        ordinal = self.counts[key] = self.counts.get(key, 0) + 1
        # Beyond the bounds, where ten suffice to refuse the message, nobody reads whose it is: that takes up to 1 ms.
        is_forged = key == FIELD_KEY and (is_beyond or service.own_ids.claimed_by(value))
        if is_forged or key in service.stripped:
            self.deletions_beyond += is_beyond
            if not self.exceeds_deletions:
                (self.forged if is_forged else self.listed).append(DeleteHeader(name, ordinal))


def _crlf(value: bytes) -> bytes:
    """With the line ends that a message has."""
    return value.replace(CRLF, b"\n").replace(b"\n", CRLF)
