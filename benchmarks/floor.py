"""What the cryptographic operations alone cost here: nobody who signs or verifies can be below that.

Measured in this process with the library that mailguard uses; the C daemons use the system's OpenSSL. CPU time.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from bench_keys import BenchKeys
from spread import Spread

__all__ = ["floor"]

OCTETS = b"x" * 600
"""About what the canonical header of a message has."""
REPETITIONS = 7
OPERATIONS = 300


def floor(keys: BenchKeys) -> dict[str, Spread]:
    """Seconds of CPU for one operation."""
    padding, digest = PKCS1v15(), SHA256()
    rsa_signature = keys.rsa_key.sign(OCTETS, padding, digest)
    rsa_public = keys.rsa_key.public_key()
    ed25519_signature = keys.ed25519_key.sign(OCTETS)
    ed25519_public = keys.ed25519_key.public_key()
    operations: dict[str, Callable[[], object]] = {
        "RSA-2048 sign": lambda: keys.rsa_key.sign(OCTETS, padding, digest),
        "RSA-2048 verify": lambda: rsa_public.verify(rsa_signature, OCTETS, padding, digest),
        "Ed25519 sign": lambda: keys.ed25519_key.sign(OCTETS),
        "Ed25519 verify": lambda: ed25519_public.verify(ed25519_signature, OCTETS),
    }
    return {name: Spread.of([_seconds(act) for _ in range(REPETITIONS)]) for name, act in operations.items()}


def _seconds(act: Callable[[], object]) -> float:
    started = time.process_time()
    for _ in range(OPERATIONS):
        act()
    return (time.process_time() - started) / OPERATIONS
