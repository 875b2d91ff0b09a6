"""A file in PEM, as Postfix takes certificates and keys from: what the checks want to know of it.

The only importer of cryptography here. Pure; safe to use from several threads.
"""

from __future__ import annotations

import re

from cryptography import x509

from mailguard.audit.facts import CertificateFacts

__all__ = ["has_private_key", "read_certificate"]

_BLOCK = re.compile(
    rb"(?P<key>-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----)"
    rb"|-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----.*?-----END [A-Z0-9 ]+-----",
    re.DOTALL,
)
_KEY = re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----")


def has_private_key(octets: bytes) -> bool:
    """Whether there is one in PEM."""
    return _KEY.search(octets) is not None


def read_certificate(octets: bytes) -> CertificateFacts | str:
    """The server's own: the first one, and in smtpd_tls_chain_files each that follows a key.

    A text says what is wrong. Of several, all must be valid; they are for the names of each.
    """
    own = _own_certificates(octets)
    if not own:
        return "there is no certificate in it"
    try:
        loaded = [x509.load_pem_x509_certificate(pem) for pem in own]
        begins = max(each.not_valid_before_utc for each in loaded)
        ends = min(each.not_valid_after_utc for each in loaded)
        names = tuple(dict.fromkeys(name for each in loaded for name in _names(each)))
    except ValueError as error:
        return f"its certificate cannot be read: {error}"
    return CertificateFacts(
        begins.timestamp(),
        ends.timestamp(),
        names,
        begins=begins.strftime("%Y-%m-%d"),
        ends=ends.strftime("%Y-%m-%d"),
    )


def _own_certificates(octets: bytes) -> list[bytes]:
    found, is_own = [], True
    for block in _BLOCK.finditer(octets):
        if block["key"]:
            is_own = True
        elif is_own:
            found.append(block[0])
            is_own = False
    return found


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    return tuple(name.lower() for name in extension.value.get_values_for_type(x509.DNSName))
