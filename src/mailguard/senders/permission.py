"""Permission: may this login use this address, by which rule of which source, and what was asked. Values only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, NoReturn

__all__ = ["Asked", "Entry", "Permission", "PermissionStatus"]


class PermissionStatus(Enum):
    """What a source says."""

    GRANTED = "granted"
    DENIED = "denied"
    """The source knows the address, and the login is not among those who may use it."""
    UNKNOWN = "unknown"
    """The source knows nothing that would let the login use it; another one may."""
    UNAVAILABLE = "unavailable"
    """The source could not be asked: a fault of ours, which neither lets a message pass nor refuses it."""


class Entry(Enum):
    """Whose entry a source goes by. That of the address goes before that of the address without its tag."""

    ADDRESS = "address"
    WITHOUT_TAG = "without-tag"
    OTHER = "other"
    """That of the domain or of the login, or none."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that was put to a table or a database, for people: never with a password."""

    statement: str
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Permission:
    """The answer. `rule` names what granted or denied it; empty where no rule speaks of the address."""

    status: PermissionStatus
    login: str
    address: str
    source: str = ""
    """The source that decided; empty if none did."""
    rule: str = ""
    reason: str = ""
    """One sentence for people."""
    asked: tuple[Asked, ...] = ()
    entry: Entry = Entry.ADDRESS

    def __bool__(self) -> NoReturn:
        raise TypeError("a Permission is neither true nor false: compare its status")

    @property
    def is_granted(self) -> bool:
        """Whether the login may use the address."""
        return self.status is PermissionStatus.GRANTED

    @property
    def is_provisional(self) -> bool:
        """Whether another source may have an entry that goes before the one that granted it."""
        return self.is_granted and self.entry is Entry.WITHOUT_TAG

    def after(self, earlier: tuple[Asked, ...]) -> Permission:
        """The same, with what sources before it were asked."""
        return replace(self, asked=(*earlier, *self.asked)) if earlier else self

    def to_json(self) -> dict[str, Any]:
        """For `json.dumps`."""
        return {
            "login": self.login,
            "address": self.address,
            "status": self.status.value,
            "source": self.source,
            "rule": self.rule,
            "reason": self.reason,
            "asked": [{"statement": each.statement, "parameters": list(each.parameters)} for each in self.asked],
        }
