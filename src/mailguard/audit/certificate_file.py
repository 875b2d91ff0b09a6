"""A file in PEM, as Postfix takes certificates and keys from: what the checks want to know of it.

The only importer of cryptography here. Pure; safe to use from several threads.
"""

from __future__ import annotations

import re

from cryptography import x509

from mailguard.audit.facts import CertificateFacts

__all__ = ["has_private_key", "read_certificate"]

_CERTIFICATE = re.compile(rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----.*?-----END [A-Z0-9 ]+-----", re.DOTALL)
_KEY = re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----")


def has_private_key(octets: bytes) -> bool:
    """Whether there is one in PEM."""
    return _KEY.search(octets) is not None


def read_certificate(octets: bytes) -> CertificateFacts | str:
    """The first certificate, which is the server's own; a text says what is wrong."""
    found = _CERTIFICATE.search(octets)
    if found is None:
        return "there is no certificate in it"
    try:
        certificate = x509.load_pem_x509_certificate(found[0])
        begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        names = _names(certificate)
    except ValueError as error:
        return f"its certificate cannot be read: {error}"
    return CertificateFacts(
        begins.timestamp(),
        ends.timestamp(),
        names,
        begins=begins.strftime("%Y-%m-%d"),
        ends=ends.strftime("%Y-%m-%d"),
    )


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    return tuple(name.lower() for name in extension.value.get_values_for_type(x509.DNSName))
