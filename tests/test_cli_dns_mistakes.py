"""`mailguard dns`, called as it should not be: one plain line, and the right exit code."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli_process import Command


@pytest.fixture
def config(tmp_path: Path) -> str:
    zone = tmp_path / "zone"
    zone.write_text("$ORIGIN us.test.\n@ MX 10 mx.us.test.\n")
    path = tmp_path / "mailguard.toml"
    path.write_text(f'authserv_id = "mx.us.test"\n[dns]\nzone_file = "{zone}"\n')
    return str(path)


LONG_NAME = ".".join(["a" * 60] * 4) + ".abcdef"
MISTAKES = [
    ("no domain", ["us test"], "is not a domain name"),
    ("no config", ["us.test", "-c", "/no/such/file"], "/no/such/file"),
    ("all is ours", ["us.test", "--spf", "-all"], "the record ends with ~all"),
    ("no term", ["us.test", "--spf", "ip4:1.2.3"], "--spf: in its term 1"),
    ("two terms in one", ["us.test", "--spf", "ip4:1.2.3.4 +all"], "it takes one term"),
    ("a version", ["us.test", "--spf", "v=spf1"], "it takes one term"),
    ("a redirect", ["us.test", "--spf", "redirect=x.test"], "it means nothing; use include:"),
    ("everybody", ["us.test", "--spf", "ip4:0.0.0.0/0"], "so many addresses are not your own"),
    ("half of everybody", ["us.test", "--spf", "ip4:128.0.0.0/1"], "so many addresses are not your own"),
    ("everybody by IPv6", ["us.test", "--spf", "ip6:::/0"], "so many addresses are not your own"),
    ("everybody by a", ["us.test", "--spf", "a/0"], "so many addresses are not your own"),
    ("a long name", [LONG_NAME, "--mx", "mx.us.test"], "a name has at most 253 characters"),
    ("a long name compared", [LONG_NAME, "--mx", "mx.us.test", "--diff"], "a name has at most 253 characters"),
    ("another zone", ["us.test", "--mx", "mx.us.test", "--zone", "other.test"], "us.test is not in other.test"),
    ("a zone below", ["us.test", "--mx", "mx.us.test", "--zone", "a.us.test"], "us.test is not in a.us.test"),
    ("a literal", ["us.test", "--report-to", "u@[192.0.2.1]"], "is not an address"),
    ("no address", ["us.test", "--report-to", "postmaster"], "is not an address"),
    ("an address that ends a tag", ["us.test", "--report-to", '"a;b"@us.test'], "is not an address"),
    ("no host", ["us.test", "--mx", "a b"], "is not the name of a host"),
    ("no certificate", ["us.test", "--mx", "mx.us.test", "--certificate", "/no/such"], "/no/such: cannot be read"),
    ("a directory", ["us.test", "--mx", "mx.us.test", "--certificate", "/etc"], "/etc: cannot be read"),
    ("another file", ["us.test", "--mx", "mx.us.test", "--certificate", "/etc/passwd"], "no certificate"),
    ("no such form", ["us.test", "--format", "xml"], "'xml' is not one of"),
]


@pytest.mark.parametrize(("arguments", "said"), [row[1:] for row in MISTAKES], ids=[row[0] for row in MISTAKES])
def test_mistakes(mailguard_command: Command, config: str, arguments: list[str], said: str) -> None:
    named = [] if "-c" in arguments else ["-c", config]
    done = mailguard_command("dns", *arguments, *named)
    assert done.code in (64, 78)
    assert said in done.err
    assert "Traceback" not in done.err
    assert done.out == ""
