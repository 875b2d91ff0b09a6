"""Advice: what a word of a result means, and what an administrator can do about it, on which side. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass

__all__ = ["TRY_AGAIN", "Advice", "Names"]

TRY_AGAIN = "try again later; if it stays, look at the resolver of this host"
"""For the receiving side, where the DNS did not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What stands for the braces in an advice: names, or where one is not known the word that docs/reasons.md has."""

    author: str = "AUTHOR-DOMAIN"
    """The domain in From."""
    domain: str = "DOMAIN"
    """The one that was checked: of the reverse path, of HELO, or d= of a signature."""
    selector: str = "SELECTOR"
    client: str = "ADDRESS"
    """The client's IP address."""
    term: str = "ip4:ADDRESS"
    """The SPF term that names the client."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What one word means, and what to do. Texts have `Names` in braces, and nothing of a stranger's."""

    meaning: str
    sender: str = ""
    """For the administrator of the sending side; empty where that has nothing to do."""
    receiver: str = ""
    """For the administrator of the receiving side."""

    def for_sender(self, names: Names | None = None) -> str:
        """`sender` with its names."""
        return self.sender.format_map(asdict(names or Names()))

    def for_receiver(self, names: Names | None = None) -> str:
        """`receiver` with its names."""
        return self.receiver.format_map(asdict(names or Names()))

    def text(self, names: Names | None = None) -> str:
        """Who does what, in one line; empty where nobody has to do anything."""
        sides = (("sending side", self.for_sender(names)), ("receiving side", self.for_receiver(names)))
        return "; ".join(f"{side}: {todo}" for side, todo in sides if todo)
