"""`mailguard sign`: put a DKIM-Signature on a message (RFC 6376 §5).

The message is written as it came, with the new fields above it and its own kind of line end in them.
"""

from __future__ import annotations

import sys
import time

import click

from mailguard.cli.message_file import STANDARD_INPUT, read_message
from mailguard.cli.parameters import FILE, POSIX_SECONDS, as_domain, as_selectors
from mailguard.cli.standard_error import note
from mailguard.dkim.canonical import Canonicalization
from mailguard.dkim.sign import SigningRules
from mailguard.dkim.signing_key import KeyPermissions, SigningKey
from mailguard.domain import Domain
from mailguard.message import Message
from mailguard.pipeline import sign_dkim

__all__ = ["sign"]

CRLF = b"\r\n"
_FORMS = [f"{header.value}/{body.value}" for header in Canonicalization for body in Canonicalization]


@click.command()
@click.argument("file", type=FILE, default=STANDARD_INPUT)
@click.option("--domain", callback=as_domain, required=True, metavar="DOMAIN", help="The domain that signs (d=).")
@click.option(
    "--selector",
    "selectors",
    callback=as_selectors,
    required=True,
    multiple=True,
    metavar="NAME",
    help="The selector (s=) of the key.",
)
@click.option("--key", "files", required=True, multiple=True, type=FILE, metavar="FILE", help="The private key.")
@click.option(
    "--canonicalization",
    type=click.Choice(_FORMS),
    metavar="HEADER/BODY",
    default="relaxed/relaxed",
    show_default=True,
    help="Of each: simple or relaxed.",
)
@click.option("--group-readable", is_flag=True, help="Accept a key file that its group can read.")
@click.option("--now", type=POSIX_SECONDS, metavar="SECONDS", help="Sign as at this POSIX time.")
def sign(
    file: str,
    domain: Domain,
    selectors: tuple[str, ...],
    files: tuple[str, ...],
    canonicalization: str,
    group_readable: bool,
    now: int | None,
) -> None:
    """Sign the message in FILE (or standard input) and write it to standard output.

    --selector and --key may be given several times, in pairs: one signature is made with each.
    """
    if len(selectors) != len(files):
        raise click.UsageError(f"there are {len(selectors)} --selector and {len(files)} --key; give them in pairs")
    permissions = KeyPermissions.GROUP if group_readable else KeyPermissions.STRICT
    keys = [
        SigningKey.load(key_file, domain=domain, selector=selector, permissions=permissions)
        for selector, key_file in zip(selectors, files, strict=True)
    ]
    raw = read_message(file)
    message = Message.parse(raw)
    header_form, _, body_form = canonicalization.partition("/")
    rules = SigningRules(
        header_canonicalization=Canonicalization(header_form), body_canonicalization=Canonicalization(body_form)
    )
    fields = sign_dkim(message, keys=keys, now=time.time() if now is None else now, rules=rules)
    _note_other_author(message, domain)
    line_end = CRLF if raw[: raw.find(b"\n") + 1].endswith(CRLF) else b"\n"
    for field in fields:
        sys.stdout.buffer.write(field.raw.replace(CRLF, line_end) + line_end)
    sys.stdout.buffer.write(raw)


def _note_other_author(message: Message, domain: Domain) -> None:
    # RFC 9989 §4.4: unless the author's domain asks for more, one Organizational Domain is enough. Nothing is looked
    # up here: domains of which one is above the other are taken to have it, of others nothing is known.
    for author in message.author.domains:
        if not author.is_equal_or_below(domain) and not domain.is_equal_or_below(author):
            note(f"From is of {author}, not of {domain}: DMARC gains only if both have one Organizational Domain")
