"""The macros that an MTA sends, by the command that they came for. Names and values are octets.

Which of them are read is here too, as Postfix is asked for them (smfi_setsymlist). For one thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mailguard_milter import protocol_numbers as numbers
from mailguard_milter.engine import CONNECT_MACROS, MAIL_MACROS, QUEUE_ID_MACRO
from mailguard_milter.protocol import Macros

__all__ = ["SYMBOLS", "ReceivedMacros"]

# To Postfix a list without any name is none: it sends those of main.cf then (3.7; Sendmail sends none). A stage of
# which nothing is read asks for the shortest.
_LEAST = QUEUE_ID_MACRO.encode()
SYMBOLS: Mapping[int, bytes] = {
    numbers.SMFIM_CONNECT: " ".join(CONNECT_MACROS).encode(),
    numbers.SMFIM_HELO: _LEAST,
    numbers.SMFIM_ENVFROM: " ".join(MAIL_MACROS).encode(),
    numbers.SMFIM_ENVRCPT: _LEAST,
    numbers.SMFIM_DATA: _LEAST,
    numbers.SMFIM_EOH: _LEAST,
    numbers.SMFIM_EOM: QUEUE_ID_MACRO.encode(),
}
"""What is asked for at each stage, for the negotiation."""

_CONNECT_NAMES = tuple((name, name.encode()) for name in CONNECT_MACROS)
_MAIL_NAMES = tuple((name, name.encode()) for name in MAIL_MACROS)
# Sendmail and others may write a name of one letter either way.
_QUEUE_ID_NAMES = (QUEUE_ID_MACRO.encode(), b"{%b}" % QUEUE_ID_MACRO.encode())
# The later one counts.
_KEPT = b""
_QUEUE_ID_COMMANDS = (b"E", b"B", b"N", b"L", b"T", b"R", _KEPT)
_OF_SESSION = frozenset({b"C", b"H"})
_NONE: Mapping[bytes, bytes] = {}


class ReceivedMacros:
    """Those of one connection: of its session, and of the message that is under way."""

    __slots__ = ("_of_message", "_of_session")

    def __init__(self) -> None:
        self._of_session: dict[bytes, Mapping[bytes, bytes]] = {}
        self._of_message: dict[bytes, Mapping[bytes, bytes]] = {}

    def take(self, event: Macros) -> None:
        """They replace those that came for the same command before."""
        command, values = event
        (self._of_session if command in _OF_SESSION else self._of_message)[command] = values

    def forget(self) -> None:
        """Another client follows on the connection."""
        self._of_session = {}
        self._of_message = {}

    def at_connect(self) -> dict[str, bytes | None]:
        """What is read at CONNECT."""
        return self._found(_CONNECT_NAMES, _NONE)

    def at_mail(self) -> dict[str, bytes | None]:
        """What is read at MAIL, where a new message begins: what came for another does not count for it."""
        own = self._of_message.get(b"M", _NONE)
        # Some MTAs tell the queue id here alone. Nothing else of it is kept: a login must not outlive its message.
        self._of_message = {_KEPT: {name: own[name] for name in _QUEUE_ID_NAMES if name in own}}
        return self._found(_MAIL_NAMES, own)

    def queue_id(self) -> bytes | None:
        """Of the message that is under way. None: the MTA has not told it."""
        for command in _QUEUE_ID_COMMANDS:
            values = self._of_message.get(command, _NONE)
            for name in _QUEUE_ID_NAMES:
                if name in values:
                    return values[name]
        return None

    def _found(self, names: Sequence[tuple[str, bytes]], own: Mapping[bytes, bytes]) -> dict[str, bytes | None]:
        """Those that came with the event, or with CONNECT or HELO before it."""
        session = self._of_session
        sent = {**session.get(b"C", _NONE), **session.get(b"H", _NONE), **own}
        return {name: sent[octets] for name, octets in names if octets in sent}
