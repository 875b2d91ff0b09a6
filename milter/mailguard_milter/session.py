"""One SMTP session as a pure state machine: milter events in, questions and actions out.

The session knows neither libmilter nor sockets nor the clock. An engine calls its methods in the order in which
the MTA's events arrive, one at a time, on any thread. At the end of the message it may raise `Unanswered`; the
engine then waits in its own way and calls again.

Our own users' mail is signed, everything else is verified. Our own are an authenticated client, a service
whose {daemon_name} is listed, and a listed network for its listed domains.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address

from mailguard.config import Listener
from mailguard.dkim.canonical import BodyDigests
from mailguard.dkim.sign import sign_body_requests
from mailguard.dns.answers import Answers
from mailguard.dns.question import Question
from mailguard.domain import Domain
from mailguard.envelope import Envelope
from mailguard.errors import KeyFileError
from mailguard.inbound import plan_inbound
from mailguard.message import Message
from mailguard.spf.check import sender_questions
from mailguard.spf.identity import read_identity
from mailguard.spf.result import SpfIdentity
from mailguard.submission import plan_submission
from mailguard_milter.arrival import failed_on_arrival
from mailguard_milter.conclusion import Conclusion, conclude
from mailguard_milter.long_lines import BodyLines
from mailguard_milter.service import Service
from mailguard_milter.transaction import Role, Transaction

__all__ = ["Macros", "Session"]

Macros = Mapping[str, bytes | None]
"""By the names that Postfix gives them. None: there is a value, but libmilter could not hand it over."""

# In place of a login that libmilter cannot hand over, or that the MTA does not tell. They stand for nobody.
UNDECODABLE_LOGIN = b"(undecodable)"
UNNAMED_LOGIN = b"(unnamed)"
NOBODY = b""


class Session:
    """One connection of the MTA; several messages may follow each other in it."""

    def __init__(self, service: Service, listener: Listener) -> None:
        self._service = service
        self._listener = listener
        self._client: IPv4Address | IPv6Address | None = None
        self._helo = b""
        self._daemon_name: bytes | None = b""
        self._transaction: Transaction | None = None
        """Of the message that is under way; None until it says something."""

    def connect(self, address: IPv4Address | IPv6Address | None, macros: Macros) -> None:
        """The client connected. `address` is None where it has none (a UNIX socket, an unknown family)."""
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        self._client = mapped or address
        self._helo = b""
        self._daemon_name = macros.get("{daemon_name}", b"")
        self._transaction = None

    def helo(self, name: bytes) -> None:
        """HELO or EHLO, perhaps again after STARTTLS: a message under way is dropped (RFC 5321 §4.1.4)."""
        self._helo = name
        self._transaction = None

    def mail(self, path: bytes, macros: Macros) -> None:
        """MAIL FROM: a new message begins. `path` may have its angle brackets."""
        reverse_path = path.removeprefix(b"<").removesuffix(b">")
        login = macros.get("{auth_authen}", b"")
        if login == b"" and self._service.submission is not None and macros.get("{auth_type}", b"") != b"":
            # Somebody has logged in whom no table can know, such as by a certificate: not a stranger.
            login = UNNAMED_LOGIN
        # Postfix reads some paths as another address than they show, or as none: it is its reading that counts.
        read = macros.get("{mail_addr}")
        self._transaction = Transaction(
            envelope=Envelope(
                client_ip=self._client,
                helo=self._helo,
                mail_from=b"" if read == b"" else reverse_path,
                mail_from_as_read=read if read and not _is_the_same(reverse_path, read) else None,
                # A login that cannot be decoded is a login all the same: never treat its owner as a stranger.
                login=UNDECODABLE_LOGIN if login is None else (login or None),
            ),
            warning=self._macro_warning(reverse_path, macros),
        )

    def rcpt(self) -> tuple[Question, ...]:
        """RCPT TO. Returns what to look up from the first one on: by then the MTA wants the message."""
        state = self._transaction or self._nobodys()
        if state.has_recipient or state.login is not None or self._listener.role == "sign":
            return ()
        state.has_recipient = True
        state.sender = read_identity(state.envelope, SpfIdentity.MAIL_FROM)
        return sender_questions(state.sender, state.envelope)

    def headers(self, fields: Sequence[tuple[bytes, bytes]]) -> None:
        """The next header fields as libmilter hands them over: leading white space kept, folds with a bare LF."""
        (self._transaction or self._nobodys()).add_fields(fields, self._service)

    def end_of_header(self) -> tuple[Question, ...]:
        """The header is complete: the role is known. Returns what to look up while the body arrives."""
        state = self._transaction or self._nobodys()
        state.message = Message.from_fields(state.fields)
        state.role = self._role(state, state.message)
        if state.role is Role.SIGN:
            self._choose_keys(state, state.message)
            return self._plan_submission(state, state.message)
        if state.role is Role.VERIFY:
            state.plan = plan_inbound(state.message, state.envelope, self._service.judging, sender=state.sender)
            state.digests = BodyDigests(state.plan.body_requests)
            return state.plan.questions
        return ()

    def body(self, chunk: bytes) -> None:
        """A part of the body, CRLF line ends, cut anywhere."""
        state = self._transaction or self._nobodys()
        state.digests.update(chunk)
        if state.body_lines is not None:
            state.body_lines.update(chunk)

    def end_of_message(self, answers: Answers, *, now: float) -> Conclusion:
        """Judge the message. Raises Unanswered while look-ups are missing; `now` is in POSIX seconds."""
        state = self._transaction or self._nobodys()
        if state.message is None:
            raise ValueError("the end of the message came before the end of its header")
        state.digests.finish()
        return conclude(self._service, state, state.message, answers, now=now)

    def abort(self) -> None:
        """The message is dropped; the session goes on."""
        self._transaction = None

    def _nobodys(self) -> Transaction:
        """For an MTA that goes on without MAIL, as none does: it is nobody's client."""
        self._transaction = Transaction()
        return self._transaction

    def _macro_warning(self, reverse_path: bytes, macros: Macros) -> str:
        """Postfix sends {mail_addr} by default with every sender: without it, a login would not be seen either."""
        if self._listener.role == "verify" or macros.get("{auth_authen}", b"") != b"":
            return ""
        if macros.get("{auth_type}", b"") != b"":
            return "the client authenticated, but Postfix names no login: {auth_authen} is missing"
        if reverse_path and "{mail_addr}" not in macros and "{auth_authen}" not in macros:
            return "logins cannot be seen: add {auth_authen} and {mail_addr} to milter_mail_macros in main.cf"
        return ""

    def _role(self, state: Transaction, message: Message) -> Role:
        if self._listener.role == "verify":
            return Role.VERIFY
        if state.login is not None or self._is_originating_service() or self._is_listed_client(message):
            return Role.SIGN
        return Role.NONE if self._listener.role == "sign" else Role.VERIFY

    def _is_originating_service(self) -> bool:
        name = self._daemon_name
        return name is not None and name.decode("utf-8", "replace") in self._service.config.sign.daemon_names

    def _is_listed_client(self, message: Message) -> bool:
        """Whether the client's network may have mail of the author's domain signed; nobody's may by default."""
        return self._network_domains(message) is not None

    def _network_domains(self, message: Message) -> frozenset[Domain] | None:
        """All domains that the client's network is listed for, if those of the author are among them."""
        client, domains = self._client, set(message.author.domains)
        if client is None or not domains:
            return None
        listed = [
            rule.domains
            for rule in self._service.config.sign.networks
            if any(client in network for network in rule.networks)
        ]
        if not any(domains <= set(each) for each in listed):
            return None
        return frozenset(Domain.parse(name) for each in listed for name in each)

    def _plan_submission(self, state: Transaction, message: Message) -> tuple[Question, ...]:
        rules = self._service.submission
        if rules is None or message.malformed is not None:
            return ()
        domains = None if state.login is not None else self._network_domains(message)
        if state.login is None and (domains is None or self._client is None or self._client.is_loopback):
            # A service of our own, which the configuration trusts by its name; and this host itself: sendmail(1),
            # bounces, forwarded mail, whose reverse paths are of other domains.
            return ()
        login = NOBODY if state.login in (UNDECODABLE_LOGIN, UNNAMED_LOGIN) else state.login
        state.submission = plan_submission(message, state.envelope, rules, login=login, network_domains=domains)
        return state.submission.questions

    def _choose_keys(self, state: Transaction, message: Message) -> None:
        if message.malformed is not None:
            return
        domain = message.author.domains[0]
        if state.forged and state.login is None:
            # The fields that claim to be ours: it has been here, and its client is not who wrote it.
            state.arrival = failed_on_arrival(message, self._service.own_ids)
            if state.arrival is not None:
                state.unsigned_because = f"it came in from outside, and did not pass DMARC for {state.arrival.domain}"
                return
        try:
            state.keys = self._service.key_ring.keys_for(domain)
        except KeyFileError as error:
            state.key_error = str(error)
            return
        if state.keys:
            state.digests = BodyDigests(sign_body_requests(self._service.signing))
            state.body_lines = BodyLines()
        else:
            state.unsigned_because = f"no key is configured for {domain}"


def _is_the_same(written: bytes, read: bytes) -> bool:
    """Postfix tells a path in lower case, beyond ASCII by Unicode's case folding (U+00DF is "ss"), and keeps it as
    it was written: that is the address. Sendmail tells a mailbox of its own without its domain and what follows "+".
    """
    if written.lower() == read.lower():
        return True
    if b"@" not in read:
        local_part, _, domain = written.rpartition(b"@")
        mailbox = local_part.lower()
        return domain != b"" and b"@" not in mailbox and read.lower() in (mailbox, mailbox.partition(b"+")[0])
    try:
        one, other = (unicodedata.normalize("NFC", path.decode("utf-8").casefold()) for path in (written, read))
    except UnicodeDecodeError:
        return False
    return one == other
