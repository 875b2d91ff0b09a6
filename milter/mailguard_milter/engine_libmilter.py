"""The engine on libmilter: callbacks in, events of a session out, actions carried out. The only importer of pymilter.

It speaks to pymilter's C module: bytes wherever that module has bytes, and no layer in between. What libmilter
does (8.17.1 as Debian builds it, and the classic build) shapes this file:

- Callbacks of one session come one after the other but on different threads. Nothing waits before the end of the
  message, because commands that become readable together queue behind one thread; there the look-ups have a deadline.
- All stages but the end of the message are negotiated without a reply; libmilter makes up the reply for an MTA that
  wants one. A callback must then answer NOREPLY whatever happens: libmilter sends nothing else, but from MAIL on any
  other answer makes it forget the message, and the MTA waits for ever. A failure is remembered and told at the end.
- pymilter decodes what comes with CONNECT and HELO itself. Where it cannot, nobody is called here: a message without
  CONNECT gets 451 at its end, one without HELO is judged as such.
- A callback that returns True rejects, one that returns None tempfails, and SystemExit ends the process: callbacks
  return typed verdicts through one wrapper, with one catch-all.
- libmilter opens its own listening socket, and unlinks whatever is at that path when it ends. It gets one in a
  private directory; the supervisor's is put over it with dup2. Draining puts a socket over it that nobody can reach.

Left out: changing bodies and recipients, QUIT_NC between MTAs of different abilities on one listener.
pymilter has one milter a process: make one `Engine`, after the last fork.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable
from enum import Enum, IntEnum
from typing import Any

from mailguard.dns.answers import Answers, Unanswered, evaluate
from mailguard.errors import MissingExtraError, install_command
from mailguard_milter.actions import Accept, Action, DeleteHeader, InsertHeader, Quarantine, Reply
from mailguard_milter.engine import (
    CONNECT_MACROS,
    INTERNAL_ERROR,
    MAIL_MACROS,
    SESSION_TIMEOUT_S,
    Concluded,
    Dialogue,
    Surroundings,
    client_address,
    tell_failure,
)
from mailguard_milter.libmilter_macros import macros, queue_id_of
from mailguard_milter.log import Severity
from mailguard_milter.negotiation import ACTIONS
from mailguard_milter.received_macros import SYMBOLS
from mailguard_milter.sockets import LibmilterSocket, Stalls
from mailguard_milter.thread_binding import thread_forgetter
from mailguard_milter.thread_stack import stack_follower

try:
    import milter as _milter
except ImportError as error:
    raise MissingExtraError(
        "the milter daemon needs pymilter; install libmilter-dev gcc python3-dev (Debian, Ubuntu) or"
        " sendmail-milter-devel gcc python3-devel (Fedora), and then:"
        f" {install_command('milter')}"
        f" ({error})"
    ) from None

# A C module without types (and, for mypy, hidden by the directory of the same name in the source tree).
milter: Any = _milter

__all__ = ["Engine"]

# A name that libmilter keeps a pointer to: it must live as long as the process (register() takes no copy).
_NAME = "mailguard-milter"

# An MTA gives a milter 30 s for a command (milter_command_timeout). When libmilter could not start a thread, it never
# reads again from the session that it was for, and others may wait behind it.
STALLED_AFTER_S = 45.0
# Often enough for each of our own sessions to say something before libmilter's time-out (SESSION_TIMEOUT_S).
WAKE_EVERY_S = 60.0
# When so many of the most sessions are left, more are accepted again.
ROOM_AGAIN = 0.9
# How many header fields wait to be told a session at once, and how long a value may be to wait. The session forgets
# what is beyond its own bounds, this engine does not.
MOST_WAITING_FIELDS = 64
LONGEST_WAITING_VALUE = 4_096

_STEPS = (
    milter.P_NR_CONN
    | milter.P_NR_HELO
    | milter.P_NR_MAIL
    | milter.P_NR_RCPT
    | milter.P_NR_HDR
    | milter.P_NR_EOH
    | milter.P_NR_BODY
    | milter.P_NODATA
    | milter.P_NOUNKNOWN
)
_SYMBOLS = [(stage, names.decode()) for stage, names in SYMBOLS.items()]


class _Verdict(IntEnum):
    """A number, as libmilter wants it."""

    CONTINUE = milter.CONTINUE
    NOREPLY = milter.NOREPLY
    REJECT = milter.REJECT
    TEMPFAIL = milter.TEMPFAIL


# Enum finds a member by a function in Python (3.11), and a message has a verdict for each of its header fields.
_CONTINUE = _Verdict.CONTINUE
_NOREPLY = _Verdict.NOREPLY


class _Stage(Enum):
    CONNECT = "connect"
    HELO = "helo"
    MAIL = "mail"
    RCPT = "rcpt"
    HEADER = "header"
    END_OF_HEADER = "end of header"
    BODY = "body"
    END_OF_MESSAGE = "end of message"
    ABORT = "abort"
    CLOSE = "close"


# The stages that have no reply.
_QUIET = frozenset(
    {_Stage.CONNECT, _Stage.HELO, _Stage.MAIL, _Stage.RCPT, _Stage.HEADER, _Stage.END_OF_HEADER, _Stage.BODY}
)
# A failure here concerns every message of the session, elsewhere the message.
_OF_SESSION = frozenset({_Stage.CONNECT, _Stage.HELO})


class _Conversation:
    """What the engine keeps for one connection."""

    __slots__ = ("adds_space", "dialogue", "fields", "in_message", "opened")

    def __init__(self, *, adds_space: bool) -> None:
        self.adds_space = adds_space
        # None before CONNECT, and when something failed there: every message is answered with 451 then.
        self.opened: Dialogue | None = None
        # The same, or None when something failed and the message will be answered with 451.
        self.dialogue: Dialogue | None = None
        # Those that the dialogue has not been told yet.
        self.fields: list[tuple[bytes, bytes]] = []
        self.in_message = False


class Engine:
    """libmilter on one listening socket."""

    def __init__(self, surroundings: Surroundings) -> None:
        (door,) = surroundings.doors
        self._open_dialogue = door.open_dialogue
        self._resolver = surroundings.resolver
        self._deadline_s = surroundings.deadline_s
        self._log = surroundings.log
        self._keep_trace = surroundings.keep_trace
        self._max_sessions = surroundings.max_sessions
        self._lock = threading.Lock()
        self._messages = 0
        self._running: dict[_Conversation, float] = {}
        self._spacings: set[bool] = set()
        self._told: set[str] = set()
        self._stalls = Stalls(STALLED_AFTER_S)
        self._wake_at = 0.0
        self._is_paused = False
        self.failure: BaseException | None = None
        self._on_its_stack = stack_follower()
        self._let_thread_forget = thread_forgetter()
        self._register()
        self.socket = LibmilterSocket(
            door.listening,
            setconn=milter.setconn,
            opensocket=milter.opensocket,
            interrupt=self._interrupt,
            scratch_directory=surroundings.scratch_directory,
        )
        self._thread = threading.Thread(target=self._serve, name="libmilter", daemon=True)

    # Life

    def start(self) -> None:
        """Begin to serve; returns when a session of our own was answered. Raises OSError if it is not.

        Call it on the main thread: it takes SIGUSR1.
        """
        signal.signal(signal.SIGUSR1, lambda number, frame: None)
        # On the main thread libmilter would take the signals and Python could not run.
        self._thread.start()
        self.socket.prove_and_attach()
        self._spacings.clear()

    @property
    def is_serving(self) -> bool:
        """Whether libmilter still runs."""
        return self._thread.is_alive()

    @property
    def messages(self) -> int:
        """Messages between MAIL and their end."""
        return self._messages

    def sessions(self) -> int:
        """Connections that are open; those that pymilter has not let go of included."""
        made, freed = milter.getdiag()
        return max(self.socket.sessions(), int(made - freed) - self.socket.own_sessions)

    def longest_callback_s(self) -> float:
        """How long the slowest callback that is running has been running."""
        started = list(self._running.values())
        return time.monotonic() - min(started) if started else 0.0

    def trouble(self, now: float) -> str | None:
        """See engine.Engine."""
        if now > self._wake_at:
            self.socket.wake()
            self._wake_at = now + WAKE_EVERY_S
        unread = self.socket.unread()
        if self._stalls.found(unread, now):
            return "libmilter has stopped reading"
        self._limit_sessions(len(unread))
        return None

    def detach(self) -> None:
        """See engine.Engine."""
        self._max_sessions = 0  # nothing is attached again
        self.socket.detach()

    def _limit_sessions(self, sessions: int) -> None:
        if not self._is_paused and sessions >= self._max_sessions > 0:
            self._log.event("too many sessions: accepting none until some end", Severity.ERROR, sessions=sessions)
            self.socket.pause()
            self._is_paused = True
        elif self._is_paused and sessions < self._max_sessions * ROOM_AGAIN:
            self.socket.resume()
            self._is_paused = False

    def _interrupt(self) -> None:
        if self._thread.ident is not None and self._thread.is_alive():
            signal.pthread_kill(self._thread.ident, signal.SIGUSR1)

    def _serve(self) -> None:
        try:
            milter.main()
        except BaseException as error:  # noqa: BLE001 - told to the worker, which ends the process
            self.failure = error

    def _register(self) -> None:
        milter.set_exception_policy(milter.TEMPFAIL)
        milter.set_flags(ACTIONS)
        milter.set_connect_callback(self._guarded(_Stage.CONNECT, self._connect))
        milter.set_helo_callback(self._guarded(_Stage.HELO, self._helo))
        milter.set_envfrom_callback(self._guarded(_Stage.MAIL, self._mail))
        milter.set_envrcpt_callback(self._guarded(_Stage.RCPT, self._rcpt))
        milter.set_header_callback(self._on_its_stack(self._header))
        milter.set_eoh_callback(self._guarded(_Stage.END_OF_HEADER, self._end_of_header))
        milter.set_body_callback(self._guarded(_Stage.BODY, self._body))
        milter.set_eom_callback(self._guarded(_Stage.END_OF_MESSAGE, self._end_of_message))
        milter.set_abort_callback(self._guarded(_Stage.ABORT, self._abort))
        milter.set_close_callback(self._guarded(_Stage.CLOSE, self._close))
        milter.register(_NAME, unknown=None, data=None, negotiate=self._negotiate)
        # It knows one time-out for all silence, within a message and between two.
        milter.settimeout(SESSION_TIMEOUT_S)

    # The one wrapper

    def _guarded(self, stage: _Stage, act: Callable[..., _Verdict]) -> Callable[..., int]:
        running = self._running

        def callback(context: Any, *arguments: Any) -> int:
            conversation: _Conversation | None = None
            try:
                conversation = context.getpriv() or self._after_quit_nc(context)
                running[conversation] = time.monotonic()
                return act(conversation, context, *arguments)
            except BaseException as error:  # noqa: BLE001 - SystemExit would end the process, and all its sessions
                return self._failed(stage, conversation, context, error)
            finally:
                if conversation is not None:
                    running.pop(conversation, None)

        return self._on_its_stack(callback)

    def _failed(
        self, stage: _Stage, conversation: _Conversation | None, context: Any, error: BaseException
    ) -> _Verdict:
        if conversation is not None:
            conversation.dialogue = None
            if stage in _OF_SESSION:
                conversation.opened = None
        try:
            tell_failure(self._log, stage.value, error)
            if stage is _Stage.END_OF_MESSAGE:
                return self._give_up(context)
        except BaseException:  # noqa: BLE001 - out of memory, or the MTA is gone: what is left to do is to answer
            return _Verdict.TEMPFAIL
        # A TEMPFAIL at CONNECT would poison the whole SMTP session: the end of each message tells it instead.
        return _NOREPLY if stage in _QUIET else _CONTINUE

    def _after_quit_nc(self, context: Any) -> _Conversation:
        """A connection reused after QUIT_NC: what was negotiated holds on, but pymilter has forgotten it."""
        if len(self._spacings) != 1:
            raise RuntimeError("a connection was reused, and the MTAs on this listener differ in what they offer")
        return self._begin(context, adds_space=next(iter(self._spacings)))

    def _begin(self, context: Any, *, adds_space: bool) -> _Conversation:
        """In the first callback of a session."""
        self._let_thread_forget()
        conversation = _Conversation(adds_space=adds_space)
        context.setpriv(conversation)
        return conversation

    # Callbacks

    def _negotiate(self, context: Any, options: list[int]) -> int:
        """`options`: the actions and the steps offered, replaced by what is wanted; two more are for the future."""
        try:
            actions, steps = options[:2]
            adds_space = not steps & milter.P_HDR_LEADSPC
            self._begin(context, adds_space=adds_space)
            if actions & ACTIONS != ACTIONS:
                self._tell_once(
                    "refused an MTA that does not let its milters change header fields and quarantine",
                    Severity.ERROR,
                    actions=hex(actions),
                )
                return int(milter.REJECT)
            if adds_space:
                self._tell_once(
                    "the MTA does not tell the space after the colon; simple header canonicalization is a guess",
                    Severity.WARNING,
                )
            self._spacings.add(adds_space)
            takes_symbols = actions & milter.SETSYMLIST
            if takes_symbols:
                for stage, names in _SYMBOLS:
                    context.setsymlist(stage, names)
            options[:] = [ACTIONS | takes_symbols, _STEPS | (steps & milter.P_HDR_LEADSPC), 0, 0]
            return int(milter.CONTINUE)
        except BaseException as error:  # noqa: BLE001 - as in _guarded
            self._failed(_Stage.CONNECT, None, context, error)
            return int(milter.REJECT)

    def _connect(
        self, conversation: _Conversation, context: Any, hostname: str, family: int, host_address: Any
    ) -> _Verdict:
        address = None
        if isinstance(host_address, tuple):
            try:
                address = client_address(host_address[0], family)
            except ValueError:
                address = None
        dialogue = self._open_dialogue()
        dialogue.connect(address, macros(context, CONNECT_MACROS))
        conversation.opened = conversation.dialogue = dialogue
        return _NOREPLY

    def _helo(self, conversation: _Conversation, context: Any, name: str) -> _Verdict:
        if dialogue := conversation.dialogue:
            dialogue.helo(name.encode())
        return _NOREPLY

    def _mail(self, conversation: _Conversation, context: Any, path: bytes, *parameters: bytes) -> _Verdict:
        self._begin_message(conversation)
        if dialogue := conversation.dialogue:
            dialogue.mail(path, macros(context, MAIL_MACROS))
        return _NOREPLY

    def _rcpt(self, conversation: _Conversation, context: Any, path: bytes, *parameters: bytes) -> _Verdict:
        if (dialogue := conversation.dialogue) and (questions := dialogue.rcpt()):
            self._resolver.prefetch(questions)
        return _NOREPLY

    def _header(self, context: Any, name: str, value: bytes) -> int:
        # It comes for every field, and waits for nothing: `_guarded` without the watch is 2 % less for a message.
        try:
            conversation = context.getpriv()
            fields = conversation.fields
            fields.append((name.encode(), b" " + value if conversation.adds_space else value))
            if len(fields) >= MOST_WAITING_FIELDS or len(value) > LONGEST_WAITING_VALUE:
                self._hand_over(conversation)
            return _NOREPLY
        except BaseException as error:  # noqa: BLE001 - as in _guarded
            return self._failed(_Stage.HEADER, context.getpriv(), context, error)

    def _hand_over(self, conversation: _Conversation) -> None:
        fields, conversation.fields = conversation.fields, []
        if fields and (dialogue := conversation.dialogue):
            dialogue.headers(fields)

    def _end_of_header(self, conversation: _Conversation, context: Any) -> _Verdict:
        self._hand_over(conversation)
        if (dialogue := conversation.dialogue) and (questions := dialogue.end_of_header()):
            self._resolver.prefetch(questions)
        return _NOREPLY

    def _body(self, conversation: _Conversation, context: Any, chunk: bytes) -> _Verdict:
        if dialogue := conversation.dialogue:
            dialogue.body(chunk)
        return _NOREPLY

    def _end_of_message(self, conversation: _Conversation, context: Any) -> _Verdict:
        started = time.monotonic()
        try:
            dialogue = conversation.dialogue
            if dialogue is None:
                return self._give_up(context)
            now = time.time()

            def attempt(answers: Answers) -> Concluded:
                try:
                    return dialogue.end_of_message(answers, now=now)
                except Unanswered:
                    # This thread will wait now, and others may have been given to it.
                    self.socket.wake()
                    raise

            conclusion = evaluate(attempt, self._resolver, deadline=started + self._deadline_s)
            verdict = self._carry_out(conversation, context, conclusion.actions)
            queue_id = queue_id_of(context)
            self._log.message({"queue_id": queue_id, **conclusion.record, "seconds": time.monotonic() - started})
            if self._keep_trace is not None and conclusion.trace is not None:
                self._keep_trace(conclusion.trace, queue_id)
            return verdict
        finally:
            self._end_message(conversation)

    def _abort(self, conversation: _Conversation, context: Any) -> _Verdict:
        self._end_message(conversation)
        conversation.dialogue = conversation.opened
        if dialogue := conversation.dialogue:
            dialogue.abort()
        return _CONTINUE

    def _close(self, conversation: _Conversation, context: Any) -> _Verdict:
        self._end_message(conversation)
        context.setpriv(None)
        return _CONTINUE

    # Doing

    def _carry_out(self, conversation: _Conversation, context: Any, actions: Iterable[Action]) -> _Verdict:
        for action in actions:
            match action:
                case DeleteHeader(name, index):
                    context.chgheader(name.decode(), index, "")
                case InsertHeader(name, value):
                    if conversation.adds_space:
                        value = value.removeprefix(b" ")
                    context.addheader(name.decode(), value.decode(), 0)
                case Quarantine(reason):
                    context.quarantine(reason)
                case Reply():
                    return self._reply(context, action)
                case Accept():
                    return _CONTINUE
        raise ValueError("the actions do not say how the message ends")

    def _give_up(self, context: Any) -> _Verdict:
        self._log.message(
            {"queue_id": queue_id_of(context), "action": "tempfail", "reason": "internal error"}, Severity.ERROR
        )
        return self._reply(context, INTERNAL_ERROR)

    def _reply(self, context: Any, reply: Reply) -> _Verdict:
        # libmilter hands the text to a printf of its own.
        context.setreply(reply.code, reply.enhanced, reply.text.replace("%", "%%"))
        return _Verdict.REJECT if reply.code.startswith("5") else _Verdict.TEMPFAIL

    def _begin_message(self, conversation: _Conversation) -> None:
        conversation.dialogue = conversation.opened
        conversation.fields = []
        if not conversation.in_message:
            conversation.in_message = True
            with self._lock:
                self._messages += 1

    def _end_message(self, conversation: _Conversation) -> None:
        if conversation.in_message:
            conversation.in_message = False
            with self._lock:
                self._messages -= 1

    def _tell_once(self, what: str, severity: Severity, **more: object) -> None:
        with self._lock:
            if what in self._told:
                return
            self._told.add(what)
        self._log.event(what, severity, **more)
