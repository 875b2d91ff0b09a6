"""Where an alias of PostfixAdmin's leads to, by way of other aliases, level by level; a circle ends, and so does all
else.

As where Postfix delivers: an address with a tag that has an entry of its own is that, and any other is the address
without the tag. Pure: what is not known yet is fetched by a function that is handed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from mailguard.domain import Domain
from mailguard.errors import DomainError
from mailguard.senders.identity import Address, Unusable, parse_address, without_tag
from mailguard.senders.postfixadmin_tables import AliasRow, Tables

__all__ = ["levels"]

# Aliases of aliases beyond this are nobody's intention (Postfix's virtual_alias_recursion_limit is 1,000).
MAX_DEPTH = 10
# Addresses that are looked up further; those to which the first alias goes are all seen, with tags if there are more.
MAX_EXPANDED = 1_000


def levels(
    row: AliasRow,
    meant: Address | None,
    tables: Tables,
    *,
    fetch: Callable[[Sequence[Address]], None],
    delimiters: str,
    forwards: bool,
) -> Iterator[list[Address]]:
    """The addresses that an alias goes to, then those that these go to, and so on.

    `meant` is the address whose alias it is, for a catch-all that goes to a whole domain; None if there is none.
    `fetch` sees to it that what `tables` say of these addresses is there. `delimiters` is recipient_delimiter.
    `forwards`: mailboxes are followed too.
    """
    seen: set[str] = set()
    level = list(_goes_to(row, meant))
    for _ in range(MAX_DEPTH):
        tagged = [address for address in level if without_tag(address, delimiters) is not None]
        if tagged and len(tagged) <= MAX_EXPANDED:
            fetch(tagged)
            fetch([form for address in tagged for form in tables.forms(address)[1:]])
            level = [_delivered_to(address, tables, delimiters) for address in level]
        level = [address for address in {each.exact: each for each in level}.values() if address.exact not in seen]
        if not level:
            return
        seen.update(address.exact for address in level)
        yield level
        if len(seen) > MAX_EXPANDED:
            return
        fetch(level)
        level = [further for address in level for further in _further(address, tables, forwards)]


def _delivered_to(address: Address, tables: Tables, delimiters: str) -> Address:
    has_entry = any(
        tables.mailbox_at(form) is not None or tables.alias_at(form) is not None for form in tables.forms(address)
    )
    return address if has_entry else without_tag(address, delimiters) or address


def _further(address: Address, tables: Tables, forwards: bool) -> Iterator[Address]:
    mailbox = tables.mailbox_at(address)
    if tables.is_closed(address.domain) or (mailbox is not None and not (forwards and tables.mailboxes[mailbox])):
        return
    row = tables.alias_at(address)
    if row is None:
        # In an alias domain: the same address in the target domain.
        yield from tables.forms(address)[1:]
    elif row.is_active:
        yield from _goes_to(row, address)


def _goes_to(row: AliasRow, meant: Address | None) -> Iterator[Address]:
    for text in row.goto:
        if text.startswith("@"):
            if meant is not None:
                try:
                    yield Address(meant.local_part, Domain.parse(text[1:]))
                except DomainError:
                    continue  # it leads nowhere
            continue
        address = parse_address(text)
        if not isinstance(address, Unusable):
            yield address
