"""One SMTP session as a pure state machine: milter events in, questions and actions out.

The session knows neither libmilter nor sockets nor the clock. An engine calls its methods in the order in which
the MTA's events arrive, one at a time, on any thread. At the end of the message it may raise `Unanswered`; the
engine then waits in its own way and calls again.

Role (ARCHITECTURE.md, promise 2): our own users' mail is signed, everything else is verified. Our own are an
authenticated client, a service whose {daemon_name} is listed, and a listed network for its listed domains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv6Address

from mailguard import authresults
from mailguard.config import Listener
from mailguard.dkim.canonical import BodyDigests
from mailguard.dkim.result import DkimResult
from mailguard.dkim.sign import sign, sign_body_requests
from mailguard.dkim.signing_key import SigningKey
from mailguard.dkim.verify import VerificationPlan, plan_verification, verify
from mailguard.dns.answers import Answers
from mailguard.dns.question import Question
from mailguard.domain import Domain
from mailguard.envelope import Envelope
from mailguard.errors import KeyFileError
from mailguard.message import MAX_FIELDS, MAX_HEADER_BYTES, HeaderField, Message
from mailguard_milter.actions import Accept, Action, DeleteHeader, InsertHeader, Reply
from mailguard_milter.service import Service

__all__ = ["Conclusion", "Macros", "Role", "Session"]

Macros = Mapping[str, bytes | None]
"""By the names that Postfix gives them. None: there is a value, but libmilter could not hand it over."""

CRLF = b"\r\n"
UNDECODABLE_LOGIN = b"(undecodable)"
# Enough for any real list; further recipients are counted by Postfix, not here.
MAX_RECIPIENTS = 1_000


class Role(Enum):
    """What is done with a message."""

    SIGN = "sign"
    VERIFY = "verify"
    NONE = "none"
    """A listener that only signs, and a message that it must not sign."""


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What to do with the message, in order, and what to say about it in the log."""

    actions: tuple[Action, ...]
    record: dict[str, object]


@dataclass(slots=True)
class _Transaction:
    """What is known of one message. A new one begins with each MAIL."""

    mail_from: bytes = b""
    login: bytes | None = None
    warning: str = ""
    rcpt_to: list[bytes] = field(default_factory=list)
    fields: list[HeaderField] = field(default_factory=list)
    header_bytes: int = 0
    counts: dict[bytes, int] = field(default_factory=dict)
    forged: list[DeleteHeader] = field(default_factory=list)
    listed: list[DeleteHeader] = field(default_factory=list)
    message: Message | None = None
    role: Role = Role.VERIFY
    keys: tuple[SigningKey, ...] = ()
    key_error: str = ""
    unsigned_because: str = ""
    plan: VerificationPlan | None = None
    digests: BodyDigests = field(default_factory=lambda: BodyDigests(()))


class Session:
    """One connection of the MTA; several messages may follow each other in it."""

    def __init__(self, service: Service, listener: Listener) -> None:
        self._service = service
        self._listener = listener
        self._client: IPv4Address | IPv6Address | None = None
        self._helo = b""
        self._daemon_name: bytes | None = b""
        self._transaction = _Transaction()

    def connect(self, hostname: bytes, address: IPv4Address | IPv6Address | None, macros: Macros) -> None:
        """The client connected. `address` is None where it has none (a UNIX socket, an unknown family)."""
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        self._client = mapped or address
        self._daemon_name = macros.get("{daemon_name}", b"")
        self._helo = b""
        self._transaction = _Transaction()

    def helo(self, name: bytes) -> None:
        """HELO or EHLO, perhaps again after STARTTLS: the last one counts."""
        self._helo = name
        self._transaction = _Transaction()

    def mail(self, path: bytes, macros: Macros) -> None:
        """MAIL FROM: a new message begins. `path` may have its angle brackets."""
        reverse_path = path.removeprefix(b"<").removesuffix(b">")
        login = macros.get("{auth_authen}", b"")
        self._transaction = _Transaction(
            mail_from=reverse_path,
            # A login that cannot be decoded is a login all the same: never treat its owner as a stranger.
            login=UNDECODABLE_LOGIN if login is None else (login or None),
            warning=self._macro_warning(reverse_path, macros),
        )

    def rcpt(self, path: bytes) -> None:
        """RCPT TO."""
        if len(self._transaction.rcpt_to) < MAX_RECIPIENTS:
            self._transaction.rcpt_to.append(path.removeprefix(b"<").removesuffix(b">"))

    def header(self, name: bytes, value: bytes) -> None:
        """A header field as libmilter hands it over: leading white space kept, folds with a bare LF."""
        state = self._transaction
        name = name.rstrip(b" \t")
        key = name.lower()
        ordinal = state.counts[key] = state.counts.get(key, 0) + 1
        if key == authresults.FIELD_KEY and self._service.own_ids.claimed_by(value):
            state.forged.append(DeleteHeader(name, ordinal))
        elif key in self._service.stripped:
            state.listed.append(DeleteHeader(name, ordinal))
        if len(state.fields) <= MAX_FIELDS and state.header_bytes <= MAX_HEADER_BYTES:
            # One field beyond the bounds is kept, so that Message sees that they are exceeded.
            state.fields.append(HeaderField(name, value.replace(CRLF, b"\n").replace(b"\n", CRLF)))
            state.header_bytes += len(value)

    def end_of_header(self) -> tuple[Question, ...]:
        """The header is complete: the role is known. Returns what to look up while the body arrives."""
        state = self._transaction
        state.message = Message.from_fields(state.fields)
        state.role = self._role(state)
        if state.role is Role.SIGN:
            self._choose_keys(state, state.message)
            if state.keys:
                state.digests = BodyDigests(sign_body_requests(self._service.signing))
        elif state.role is Role.VERIFY:
            state.plan = plan_verification(state.message, self._service.verifying)
            state.digests = BodyDigests(state.plan.body_requests)
            return state.plan.questions
        return ()

    def body(self, chunk: bytes) -> None:
        """A part of the body, CRLF line ends, cut anywhere."""
        self._transaction.digests.update(chunk)

    def end_of_message(self, answers: Answers, *, now: float) -> Conclusion:
        """Judge the message. Raises Unanswered while look-ups are missing; `now` is in POSIX seconds."""
        state = self._transaction
        if state.message is None:
            self.end_of_header()  # an MTA that sends no end-of-header event
        message = state.message
        assert message is not None  # noqa: S101 - end_of_header has set it
        state.digests.finish()
        if state.role is Role.SIGN:
            return self._sign(state, message, now)
        if state.role is Role.VERIFY and state.plan is not None:
            return self._verify(state, message, state.plan, answers, now)
        return self._pass_unsigned(state, message)

    def abort(self) -> None:
        """The message is dropped; the session goes on."""
        self._transaction = _Transaction()

    def envelope(self) -> Envelope:
        """The envelope of the message under way."""
        state = self._transaction
        return Envelope(
            client_ip=self._client,
            helo=self._helo,
            mail_from=state.mail_from,
            rcpt_to=tuple(state.rcpt_to),
            login=state.login,
        )

    # -- the role --------------------------------------------------------------------------------------------

    def _macro_warning(self, reverse_path: bytes, macros: Macros) -> str:
        """Postfix sends {mail_addr} by default with every sender: without it, a login would not be seen either."""
        if self._listener.role == "verify" or "{auth_authen}" in macros:
            return ""
        if "{auth_type}" in macros:
            return "the client authenticated, but Postfix names no login: {auth_authen} is missing"
        if reverse_path and "{mail_addr}" not in macros:
            return "logins cannot be seen: add {auth_authen} and {mail_addr} to milter_mail_macros in main.cf"
        return ""

    def _role(self, state: _Transaction) -> Role:
        if self._listener.role == "verify":
            return Role.VERIFY
        if state.login is not None or self._is_originating_service() or self._is_listed_client(state):
            return Role.SIGN
        return Role.NONE if self._listener.role == "sign" else Role.VERIFY

    def _is_originating_service(self) -> bool:
        name = self._daemon_name
        return name is not None and name.decode("utf-8", "replace") in self._service.config.sign.daemon_names

    def _is_listed_client(self, state: _Transaction) -> bool:
        """Whether the client's network may have mail of the author's domain signed; nobody's may by default."""
        client = self._client
        domains = state.message.author.domains if state.message is not None else ()
        if client is None or not domains:
            return False
        return any(
            set(domains) <= set(rule.domains) and any(client in network for network in rule.networks)
            for rule in self._service.config.sign.networks
        )

    # -- signing ---------------------------------------------------------------------------------------------

    def _choose_keys(self, state: _Transaction, message: Message) -> None:
        if message.malformed is not None:
            return
        domain = message.author.domains[0]
        try:
            state.keys = self._service.key_ring.keys_for(domain)
        except KeyFileError as error:
            state.key_error = str(error)
            return
        if not state.keys:
            state.unsigned_because = f"no key is configured for {domain}"

    def _sign(self, state: _Transaction, message: Message, now: float) -> Conclusion:
        if message.malformed is not None:
            return self._malformed(state, message, Role.SIGN, [])
        if state.key_error:
            # Never 250 without the signature that the configuration asks for (ARCHITECTURE.md, promise 1).
            return self._end(
                state,
                message,
                [
                    Reply(
                        "451", "4.7.5", "mailguard: the signing key of the sender's domain is unavailable; try again"
                    )
                ],
                action="tempfail",
                reason=f"signing key: {state.key_error}",
            )
        if not state.keys:
            return self._pass_unsigned(state, message)
        made = sign(message, state.digests, keys=state.keys, now=now, rules=self._service.signing)
        # Each insertion at the top goes above the last: the first key's signature is to stand first.
        signatures = [_insert(signature) for signature in reversed(made)]
        return self._end(
            state,
            message,
            [*_deletions(state.forged), *signatures, Accept()],
            action="sign",
            reason="signed",
            d=state.keys[0].domain,
            s=" ".join(key.selector for key in state.keys),
        )

    def _pass_unsigned(self, state: _Transaction, message: Message) -> Conclusion:
        reason = state.unsigned_because or "the client is not authenticated and not in a listed network"
        if state.role is Role.NONE and state.warning and self._service.enforcing:
            # Whether the client authenticated cannot be known: do not guess.
            return self._end(
                state,
                message,
                [
                    Reply(
                        "451", "4.7.0", "mailguard: the mail system is misconfigured (milter_mail_macros); try again"
                    )
                ],
                action="tempfail",
                reason=state.warning,
            )
        actions: list[Action] = [*_deletions(state.forged), Accept()]
        return self._end(state, message, actions, action="accept", reason=f"unsigned: {reason}")

    # -- verifying -------------------------------------------------------------------------------------------

    def _verify(
        self, state: _Transaction, message: Message, plan: VerificationPlan, answers: Answers, now: float
    ) -> Conclusion:
        results = verify(plan, state.digests, answers, now=now)
        field = authresults.build(
            self._service.config.authserv_id,
            dkim=results,
            ignored_signatures=plan.ignored,
            malformed=message.malformed_detail,
        )
        actions: list[Action] = [*_deletions([*state.forged, *state.listed]), _insert(field)]
        dkim = {"dkim": _summary(results)}
        if message.malformed is not None:
            return self._malformed(state, message, Role.VERIFY, actions, **dkim)
        return self._end(state, message, [*actions, Accept()], action="accept", reason="verified", **dkim)

    def _malformed(
        self, state: _Transaction, message: Message, role: Role, actions: Sequence[Action], **results: object
    ) -> Conclusion:
        """No one domain answers for the message: refuse it, or say that enforcing would."""
        detail = f"malformed message: {message.malformed_detail}"
        if self._service.enforcing:
            refusal = [Reply("550", "5.6.0", f"mailguard: {detail}")]
            return self._end(state, message, refusal, action="reject", reason=detail, **results)
        kept: Sequence[Action] = actions if role is Role.VERIFY else _deletions(state.forged)
        reason = f"{detail} (enforcing would reject)"
        if role is Role.SIGN:
            reason = f"unsigned: {reason}"
        return self._end(state, message, [*kept, Accept()], action="accept", reason=reason, **results)

    # -- the end ---------------------------------------------------------------------------------------------

    def _end(
        self,
        state: _Transaction,
        message: Message,
        actions: Sequence[Action],
        *,
        action: str,
        reason: str,
        **results: object,
    ) -> Conclusion:
        record: dict[str, object] = {
            "role": state.role.value,
            "client": str(self._client) if self._client is not None else "unknown",
            "login": state.login,
            "mail_from": state.mail_from,
            "from": ",".join(map(str, message.author.mailboxes)),
            **results,
            "action": action,
            "reason": reason,
        }
        if state.forged:
            record["forged_results_removed"] = len(state.forged)
        if state.warning:
            record["warning"] = state.warning
        return Conclusion(tuple(actions), record)


def _deletions(found: list[DeleteHeader]) -> list[DeleteHeader]:
    """From the highest ordinal down: removing a field renumbers those below it."""
    return sorted(found, key=lambda deletion: deletion.index, reverse=True)


def _insert(field: HeaderField) -> InsertHeader:
    return InsertHeader(0, field.name, field.value.replace(CRLF, b"\n"))


def _summary(results: tuple[DkimResult, ...]) -> str:
    """The results in one log value: status, d= and s= of each, and the reason of what did not pass."""
    return "; ".join(map(_one_result, results)) or "none"


def _one_result(result: DkimResult) -> str:
    domain: Domain | str = result.domain or "?"
    text = f"{result.status.value} d={domain} s={result.selector or '?'}"
    return text if result.status.value == "pass" else f"{text} ({result.detail})"
