"""The exception tree.

Bad mail and bad DNS are results, never exceptions. What is raised is misuse of the library, bad
configuration, an unreadable key, or a message that must not be signed.
"""

from __future__ import annotations

import shlex
import sys

__all__ = [
    "ConfigError",
    "DomainError",
    "KeyFileError",
    "MailguardError",
    "MissingExtraError",
    "SigningRefused",
    "StoreDamaged",
    "TagListError",
    "TraceError",
    "TraceStoreError",
    "ZoneError",
    "install_command",
]


class MailguardError(Exception):
    """The root of everything that mailguard raises on purpose."""


class DomainError(MailguardError, ValueError):
    """Text that is not a domain name. Raised by `Domain.parse`; callers that judge mail turn it into a result."""


class TagListError(MailguardError, ValueError):
    """Octets that are not a tag=value list (RFC 6376 §3.2)."""


class ConfigError(MailguardError):
    """A configuration that cannot be used. The text names the file, the key and what to do."""


class KeyFileError(ConfigError):
    """A private key file that cannot or must not be used. The text names the path and what to do."""


class ZoneError(MailguardError, ValueError):
    """A zone, in memory or in a master file, that cannot be read."""


class SigningRefused(MailguardError):
    """A message that mailguard does not lend a domain to. `reason` is one word for programs."""

    def __init__(self, reason: str, detail: str) -> None:
        # Both are arguments of the exception, from which pickle and copy make it anew.
        super().__init__(reason, detail)
        self.reason = reason
        self._detail = detail

    def __str__(self) -> str:
        return self._detail


class MissingExtraError(MailguardError, ImportError):
    """A part of mailguard whose optional packages are not installed. The text says which to install."""


class TraceError(MailguardError):
    """A trace that cannot be written, read or replayed. The text says why and what to do."""


class TraceStoreError(ConfigError):
    """A database of traces that cannot be used. The text names the path and what to do."""


class StoreDamaged(TraceStoreError):
    """It is no database, or one that is damaged or of another version: nothing but a new one helps."""


def install_command(extra: str) -> str:
    """What adds an extra to this installation, for a shell.

    By the pip of this Python, which finds mailguard-milter here. Another one would ask an index for that name, and
    install what somebody else has put there.
    """
    return f"{shlex.quote(sys.executable or 'python3')} -m pip install 'mailguard-milter[{extra}]'"
