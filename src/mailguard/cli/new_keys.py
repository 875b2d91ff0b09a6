"""What keys are made, and how they are called."""

from __future__ import annotations

from datetime import date

from mailguard.dkim.signing_key import generate_ed25519, generate_rsa

__all__ = ["DEFAULT_DIRECTORY", "GENERATORS", "default_selector"]

DEFAULT_DIRECTORY = "/etc/mailguard/keys"
GENERATORS = {"rsa": generate_rsa, "ed25519": generate_ed25519}


def default_selector(algorithm: str, today: date) -> str:
    """The selector of a new key: mg202601r for RSA, mg202601e for Ed25519; the month shows its age."""
    return f"mg{today:%Y%m}{algorithm[0]}"
