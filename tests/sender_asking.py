"""Logins, addresses and answers of sources of senders, for their tests."""

from __future__ import annotations

from mailguard.senders.combine import Senders
from mailguard.senders.identity import Address, Login, LoginRules, parse_address
from mailguard.senders.permission import Permission
from mailguard.senders.source import Source

__all__ = ["address_of", "ask", "login_of"]

RULES = LoginRules()


def login_of(text: bytes | str, rules: LoginRules = RULES) -> Login:
    found = rules.login(text)
    assert isinstance(found, Login), found
    return found


def address_of(text: bytes | str) -> Address:
    found = parse_address(text)
    assert isinstance(found, Address), found
    return found


def ask(source: Source | Senders, login: str, address: str) -> Permission:
    return source.may_use(login_of(login, source.rules), address_of(address))
