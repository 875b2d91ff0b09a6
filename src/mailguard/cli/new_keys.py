"""What keys are made, how they are called, and where they are kept."""

from __future__ import annotations

from datetime import date

import click

from mailguard.cli.parameters import DIRECTORY
from mailguard.dkim.signing_key import generate_ed25519, generate_rsa

__all__ = ["DEFAULT_DIRECTORY", "GENERATORS", "KEY_DIRECTORY_OPTION", "default_selector"]

DEFAULT_DIRECTORY = "/etc/mailguard/keys"
GENERATORS = {"rsa": generate_rsa, "ed25519": generate_ed25519}
KEY_DIRECTORY_OPTION = click.option(
    "--directory",
    type=DIRECTORY,
    default=DEFAULT_DIRECTORY,
    show_default=True,
    metavar="DIR",
    help="Where keys are kept.",
)


def default_selector(algorithm: str, today: date) -> str:
    """The selector of a new key: mg202601r for RSA, mg202601e for Ed25519; the month shows its age."""
    return f"mg{today:%Y%m}{algorithm[0]}"
