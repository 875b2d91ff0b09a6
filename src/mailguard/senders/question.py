"""May this login use this address? A question as any other, so that it is asked for and awaited like the DNS's.

It has a record type of its own, which no name server is asked for. Pure values; safe to share between threads.
"""

from __future__ import annotations

from dataclasses import dataclass

from mailguard.dns.question import Answer, Question, RecordType, Status
from mailguard.senders.permission import Permission, PermissionStatus

__all__ = ["PermissionAnswer", "asked_of", "permission_answer", "permission_in", "sender_question"]

# Neither a login nor an address with a NUL stands for anybody: wherever such a name is cut, nothing is granted.
_BETWEEN = "\0"


@dataclass(frozen=True, slots=True)
class PermissionAnswer(Answer):
    """What the sources said. A plain Answer in its place says that they were not heard."""

    permission: Permission | None = None


def sender_question(login: bytes, address: bytes) -> Question:
    """May `login` use `address`? Octets as SMTP had them; the address without angle brackets."""
    return Question(f"{login.decode('latin-1')}{_BETWEEN}{address.decode('latin-1')}", RecordType.SENDER)


def asked_of(question: Question) -> tuple[bytes, bytes]:
    """The login and the address."""
    login, _, address = question.name.partition(_BETWEEN)
    return login.encode("latin-1"), address.encode("latin-1")


def permission_answer(question: Question, permission: Permission) -> PermissionAnswer:
    """`permission` as the answer to `question`."""
    unavailable = permission.status is PermissionStatus.UNAVAILABLE
    status = Status.TEMPFAIL if unavailable else Status.NOERROR
    return PermissionAnswer(question, status, detail=permission.reason, permission=permission)


def permission_in(answer: Answer) -> Permission:
    """What an answer to a sender question says; unavailable if nobody answered in time."""
    if isinstance(answer, PermissionAnswer) and answer.permission is not None:
        return answer.permission
    login, address = (octets.decode("utf-8", "backslashreplace") for octets in asked_of(answer.question))
    return Permission(PermissionStatus.UNAVAILABLE, login, address, reason=answer.detail)
