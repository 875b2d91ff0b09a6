"""The socket of one MTA: reads, feeds the conversation, writes, and waits for look-ups. For an event loop's thread.

What arrives together is taken together, and the answers to it go out with one write. Only the end of a message may
wait, and only if look-ups are missing: nothing more is read meanwhile, and the MTA is told that there is progress.
A peer that does not read what it is sent is not read either. Time-outs come with `look`, called now and then.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

from mailguard_milter.conversation import Conversation, Shared, State
from mailguard_milter.engine import SESSION_TIMEOUT_S, tell_failure
from mailguard_milter.log import Severity
from mailguard_milter.protocol import PROGRESS, Decoder, Event
from mailguard_milter.readiness import READABLE, WRITABLE, Readiness

__all__ = ["Connection"]

# A whole chunk of a body (64 KiB) and what comes with it.
READ_OCTETS = 128 * 1024
# Postfix says what it can do as soon as it is connected.
NEGOTIATION_TIMEOUT_S = 60.0
# An MTA reads an answer when it comes; what lies there for longer has no reader.
UNREAD_TIMEOUT_S = 300.0
# An MTA gives a milter 30 s or more for an answer; each word of progress begins that anew.
PROGRESS_EVERY_S = 5.0

_LISTENING = State.LISTENING


class Connection:
    """An accepted connection, until it is closed."""

    __slots__ = (
        "_conversation",
        "_decoder",
        "_descriptor",
        "_is_open",
        "_later",
        "_loop",
        "_others",
        "_readiness",
        "_shared",
        "_since",
        "_socket",
        "_unsent",
        "_waiting",
        "_watched_for",
    )

    def __init__(
        self,
        accepted: socket.SocketType,
        shared: Shared,
        *,
        loop: asyncio.AbstractEventLoop,
        readiness: Readiness,
        others: set[Connection],
    ) -> None:
        """The connection takes a place among `others`, and leaves it when it is closed."""
        self._socket = accepted
        self._descriptor = accepted.fileno()
        self._shared = shared
        self._loop = loop
        self._readiness = readiness
        self._others = others
        self._decoder = Decoder()
        self._conversation = Conversation(shared)
        # Since when, as `look` saw it, the peer is silent, or is waited for, or waits.
        self._since: float | None = None
        self._unsent = b""
        self._waiting: asyncio.Task[None] | None = None
        # What came with the event that something is waited for.
        self._later: Iterator[Event] | None = None
        self._is_open = True
        self._watched_for = 0
        others.add(self)
        # An MTA speaks first, and as a rule its first octets are here already.
        self._readable()
        try:
            self._watch()
        except BaseException as error:  # noqa: BLE001 - as in _readable
            self._out_of_order(error)

    def look(self, now: float) -> None:
        """See to the time-outs; `now` is of `time.monotonic()`. Raises nothing."""
        try:
            self._see_to_time_outs(now)
        except BaseException as error:  # noqa: BLE001 - as in _readable
            self._out_of_order(error)

    def _see_to_time_outs(self, now: float) -> None:
        since = self._since
        if since is None:
            since = self._since = now
        conversation = self._conversation
        if self._waiting is not None:
            if now - since >= PROGRESS_EVERY_S:
                self._since = now
                self._send(PROGRESS)
        elif self._unsent:
            if now - since > UNREAD_TIMEOUT_S:
                self._give_up("it does not read")
        elif conversation.began is not None:
            if now - conversation.began > SESSION_TIMEOUT_S:
                self._give_up("its message does not end")
        elif now - since > (SESSION_TIMEOUT_S if conversation.has_negotiated else NEGOTIATION_TIMEOUT_S):
            self._give_up("it is silent")

    def close(self) -> None:
        """Close it. A message under way is not answered, and the MTA does what it does without a milter."""
        if not self._is_open:
            return
        self._is_open = False
        self._readiness.forget(self._descriptor)
        self._socket.close()
        self._others.discard(self)
        self._later = None
        if self._waiting is not None:
            self._waiting.cancel()
        self._conversation.close()

    def _give_up(self, why: str) -> None:
        self.close()
        self._shared.log.event("the session of an MTA was closed", Severity.WARNING, why=why)

    # In

    def _readable(self) -> None:
        try:
            octets = self._socket.recv(READ_OCTETS, socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()  # the peer is gone
            return
        except MemoryError as error:
            self._out_of_order(error)
            return
        if not octets:
            self.close()
            return
        if self._conversation.has_negotiated:
            self._since = None
        try:
            self._take(iter(self._decoder.feed(octets)))
        except BaseException as error:  # noqa: BLE001 - SystemExit would end the loop, and all its sessions
            self._out_of_order(error)

    def _take(self, events: Iterator[Event]) -> None:
        conversation = self._conversation
        conversation.take(events)
        while conversation.state is not _LISTENING:
            if not self._attend():
                self._later = events if self._is_open else None
                self._watch()
                break
            conversation.take(events)
        if conversation.out:
            self._flush()

    def _attend(self) -> bool:
        """Do what the conversation waits for; whether it can go on at once."""
        state = self._conversation.state
        self._flush()
        if state is State.CONCLUDED and not self._unsent:
            # After a failure to send too: what became of the message is worth its line.
            self._conversation.settle()
            return self._is_open
        if state is State.OVER:
            self.close()
        elif state is State.ASKING and self._is_open:
            self._since = None
            self._waiting = self._loop.create_task(self._look_up())
        return False

    async def _look_up(self) -> None:
        conversation = self._conversation
        try:
            while conversation.state is State.ASKING:
                conversation.answered(
                    await self._shared.resolver.resolve_async(conversation.missing, deadline=conversation.deadline)
                )
        except BaseException as error:  # noqa: BLE001 - as in _readable; and this task is cancelled by `close` alone
            if not self._is_open:
                return
            conversation.give_up(error)
        self._waiting = None
        self._since = None
        try:
            if self._attend():
                self._go_on()
        except BaseException as error:  # noqa: BLE001 - as in _readable
            self._out_of_order(error)

    def _go_on(self) -> None:
        events, self._later = self._later, None
        if events is not None:
            self._take(events)
        self._watch()

    def _watch(self) -> None:
        """Be told when what is waited for can be done."""
        if self._unsent:
            wanted = WRITABLE
        elif self._waiting is None and self._later is None:
            wanted = READABLE
        else:
            wanted = 0
        if wanted == self._watched_for or not self._is_open:
            return
        if wanted:
            self._readiness.watch(self._descriptor, wanted, self._readable if wanted == READABLE else self._writable)
        else:
            self._readiness.unwatch(self._descriptor)
        self._watched_for = wanted

    def _out_of_order(self, error: BaseException) -> None:
        """Something is wrong with us, and the state of the conversation is unknown."""
        self.close()
        tell_failure(self._shared.log, "connection", error)

    # Out

    def _flush(self) -> None:
        out = self._conversation.out
        if out:
            octets = b"".join(out)
            out.clear()
            self._send(octets)

    def _send(self, octets: bytes) -> None:
        if not self._is_open:
            return
        if self._unsent:
            self._unsent += octets
            return
        try:
            sent = self._socket.send(octets, socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self.close()  # the peer is gone
            return
        if sent < len(octets):
            self._unsent = octets[sent:]
            self._since = None
            self._watch()

    def _writable(self) -> None:
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent, socket.MSG_DONTWAIT) :]
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        except MemoryError as error:
            # What was sent cannot be taken from what is to be sent.
            self._out_of_order(error)
            return
        self._since = None
        if self._unsent:
            return
        try:
            # While something is looked up, the end of that attends to the rest.
            if self._waiting is None and (self._conversation.state is _LISTENING or self._attend()):
                self._go_on()
            self._watch()
        except BaseException as error:  # noqa: BLE001 - as in _readable
            self._out_of_order(error)
