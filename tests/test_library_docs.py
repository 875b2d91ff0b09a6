"""docs/library.md: its examples run one after another, and print what stands below each."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

import mailguard
import mailguard.pipeline
from mailguard import MailguardError, Message, SigningKey, ZoneResolver, sign_dkim
from mailguard.dkim.signing_key import generate_ed25519
from source_tree import ROOT

TEXT = (ROOT / "docs/library.md").read_text("utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```\n\n^```text\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def test_the_examples_print_what_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pem = generate_ed25519()
    key = SigningKey.from_bytes(pem, domain="example.com", selector="s")
    raw = b"From: a@example.com\r\nSubject: x\r\n\r\nHello\r\n"
    (signature,) = sign_dkim(Message.parse(raw), keys=[key], now=time.time())
    (tmp_path / "message.eml").write_bytes(signature.raw + b"\r\n" + raw)
    (tmp_path / "key.pem").write_bytes(pem)
    zone = ZoneResolver(
        {
            key.public_name: {"TXT": [key.record()]},
            "example.com": {"TXT": ["v=spf1 ip4:192.0.2.10 -all"], "MX": [(10, "mx.example.com")]},
            "mx.example.com": {"A": ["192.0.2.10"]},
            "_dmarc.example.com": {"TXT": ["v=DMARC1; p=reject"]},
        }
    )
    for place in (mailguard, mailguard.pipeline):
        monkeypatch.setattr(place, "open_resolver", lambda: zone)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "example"}
    assert len(EXAMPLES) == TEXT.count("```python\n")
    for source, printed in EXAMPLES:
        exec(compile(source, "docs/library.md", "exec"), names)  # noqa: S102 - our own document
        assert capsys.readouterr().out == printed


def test_the_table_of_errors_has_public_names() -> None:
    named = re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE)
    public = {name for name in mailguard.__all__ if isinstance(getattr(mailguard, name), type)}
    errors = {name for name in public if issubclass(getattr(mailguard, name), MailguardError)}
    assert {*named, "MailguardError"} == errors
