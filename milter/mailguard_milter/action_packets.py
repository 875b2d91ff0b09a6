"""What a session concludes, as packets of the milter protocol. No state."""

from __future__ import annotations

from collections.abc import Sequence

from mailguard_milter.actions import Accept, Action, DeleteHeader, InsertHeader, Quarantine, Reply
from mailguard_milter.protocol import CONTINUE, change_header, insert_header, quarantine, reply_code

__all__ = ["action_packets", "reply_packet"]


def action_packets(actions: Sequence[Action], *, adds_space: bool) -> list[bytes]:
    """In their order, up to the one that ends the message.

    `adds_space`: the MTA puts a space before a header value itself. Raises ValueError for what the protocol cannot
    carry, and for actions that do not say how the message ends.
    """
    packets: list[bytes] = []
    for action in actions:
        match action:
            case DeleteHeader(name, index):
                packets.append(change_header(index, name, b""))
            case InsertHeader(name, value):
                packets.append(insert_header(0, name, value.removeprefix(b" ") if adds_space else value))
            case Quarantine(reason):
                packets.append(quarantine(reason.encode()))
            case Reply():
                return [*packets, reply_packet(action)]
            case Accept():
                return [*packets, CONTINUE]
    raise ValueError("the actions do not say how the message ends")


def reply_packet(reply: Reply) -> bytes:
    """Raises ValueError for what is no reply to a message."""
    return reply_code(reply.code.encode(), reply.enhanced.encode(), reply.text.encode())
