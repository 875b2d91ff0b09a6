"""A list of milters with ours in its place, as it is written: each `$name` of the administrator's stays one. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mailguard.audit.postfix import Postfix, Service
from mailguard.audit.restriction_list import words
from mailguard.config import Config, Listener
from mailguard.setup_host.milter_entry import Entry, entries, is_listener, postfix_address

__all__ = ["BRACES_SINCE", "MILTERS", "OTHER_MILTERS", "MilterLists", "Wanted", "Written", "is_ours"]

BRACES_SINCE = (3, 0)
MILTERS = "smtpd_milters"
OTHER_MILTERS = "non_smtpd_milters"
_NAMED = re.compile(r"\$[({]?(\w+)[)}]?")


@dataclass(frozen=True, slots=True)
class Written:
    """The values as they are written, with their `$name`."""

    main: Mapping[str, str] = field(default_factory=dict)
    services: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """What stands in master.cf, by the service."""


def is_ours(entry: Entry, config: Config, postfix: Postfix) -> bool:
    """Whether an entry leads to any listener of the configuration."""
    queue = postfix.value("queue_directory")
    return any(is_listener(entry, each, queue_directory=queue) for each in config.listeners)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A list as it should be, and its text."""

    entries: tuple[Entry, ...]
    text: str


class MilterLists:
    """Of one Postfix."""

    def __init__(self, config: Config, postfix: Postfix, written: Written, chrooted: Sequence[str]) -> None:
        """`chrooted` are the services in a chroot that reach milters."""
        self._config, self._postfix, self._written, self._chrooted = config, postfix, written, chrooted
        self._queue = postfix.value("queue_directory")

    def as_written(self, name: str, service: Service | None = None) -> str:
        """What stands in main.cf, or for the service where it has a value of its own."""
        if service is not None and name in service.overrides:
            return self._written.services.get(service.place, {}).get(name, "")
        return self._written.main.get(name, "")

    def arranged(self, value: str, written: str, listener: Listener | None) -> Wanted:
        """A list with the listener in its place and no other one of ours."""
        present = entries(value)
        others = tuple(each for each in present if not is_ours(each, self._config, self._postfix))
        texts = tuple(self._texts(present, written))
        if listener is None:
            return Wanted(others, ", ".join(texts))
        known = [each for each in present if is_listener(each, listener, queue_directory=self._queue)]
        address = postfix_address(listener, queue_directory=self._queue, chrooted=self._chrooted)
        takes_braces = self._postfix.version >= BRACES_SINCE
        ours = (known[0] if known else Entry(address)).at(address, takes_braces=takes_braces)
        # A signer must sign the message as it leaves; a verifier must see it as it came.
        if listener.role == "sign":
            return Wanted((*others, ours), ", ".join((*texts, ours.text)))
        return Wanted((ours, *others), ", ".join((ours.text, *texts)))

    def _texts(self, present: Sequence[Entry], written: str) -> Iterator[str]:
        """The list without ours, and as it is written: what `$name` stands for may change later."""
        pieces = tuple(self._pieces(written))
        if tuple(each for _, found in pieces for each in found) != present:
            pieces = tuple((each.text, (each,)) for each in present)
        for text, found in pieces:
            others = [each for each in found if not is_ours(each, self._config, self._postfix)]
            if len(others) == len(found):
                yield text
            else:
                yield from (each.text for each in others)

    def _pieces(self, written: str) -> Iterator[tuple[str, tuple[Entry, ...]]]:
        for word in words(written):
            name = _NAMED.fullmatch(word)
            if name is None:
                yield word, (Entry.parse(word),)
                continue
            found = entries(self._postfix.value(name[1]))
            if self._leads_to_milters(name[1]):
                # That list changes, too.
                yield from ((each.text, (each,)) for each in found)
            else:
                yield word, found

    def _leads_to_milters(self, name: str) -> bool:
        seen: set[str] = set()
        waiting = [name]
        while waiting:
            each = waiting.pop()
            if each not in seen:
                seen.add(each)
                waiting += _NAMED.findall(self._written.main.get(each, ""))
        return bool(seen & {MILTERS, OTHER_MILTERS})
