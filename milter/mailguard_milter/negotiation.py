"""What is agreed with an MTA when it connects: what we may do to its messages, and which events it sends how.

A stage is answered only where the MTA did not agree that it is not. The names of the macros that are read are told
to an MTA that asks for them: it sends those, whatever is set in its configuration. No state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mailguard_milter import protocol_numbers as numbers
from mailguard_milter.protocol import (
    Body,
    Connect,
    Data,
    EndOfHeader,
    Headers,
    Helo,
    Mail,
    Negotiate,
    Rcpt,
    Unknown,
    negotiate,
)
from mailguard_milter.received_macros import SYMBOLS

__all__ = ["ACTIONS", "Agreed", "agree"]

ACTIONS = numbers.SMFIF_ADDHDRS | numbers.SMFIF_CHGHDRS | numbers.SMFIF_QUARANTINE
# What an MTA may agree not to be answered.
_NO_REPLY: Mapping[type, int] = {
    Connect: numbers.SMFIP_NR_CONN,
    Helo: numbers.SMFIP_NR_HELO,
    Mail: numbers.SMFIP_NR_MAIL,
    Rcpt: numbers.SMFIP_NR_RCPT,
    Data: numbers.SMFIP_NR_DATA,
    Headers: numbers.SMFIP_NR_HDR,
    EndOfHeader: numbers.SMFIP_NR_EOH,
    Body: numbers.SMFIP_NR_BODY,
    Unknown: numbers.SMFIP_NR_UNKN,
}
_STEPS = sum(_NO_REPLY.values()) | numbers.SMFIP_NODATA | numbers.SMFIP_NOUNKNOWN | numbers.SMFIP_HDR_LEADSPC


@dataclass(frozen=True, slots=True)
class Agreed:
    """What holds for a connection."""

    reply: bytes
    """The packet that says so to the MTA."""
    replied_to: frozenset[type]
    """The kinds of events that the MTA waits for an answer to."""
    adds_space: bool
    """Whether header values come without the space after the colon, and are sent so."""


def agree(offer: Negotiate) -> Agreed | None:
    """None: the MTA does not let its milters do what must be done."""
    if offer.actions & ACTIONS != ACTIONS:
        return None
    steps = _STEPS & offer.steps
    takes_symbols = offer.actions & numbers.SMFIF_SETSYMLIST
    return Agreed(
        negotiate(
            min(offer.version, numbers.MAX_VERSION),
            ACTIONS | takes_symbols,
            steps,
            SYMBOLS if takes_symbols else {},
        ),
        frozenset(kind for kind, bit in _NO_REPLY.items() if not steps & bit),
        adds_space=not steps & numbers.SMFIP_HDR_LEADSPC,
    )
