"""What the TLS policy server says: of Postfix's settings, and how its lines in the log look."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from pathlib import Path

import pytest

from audit_site import POSTCONF
from mailguard.cli import tlspolicy as cli
from mailguard.config import DnsConfig
from mailguard.tlspolicy.decide import Mixed
from mailguard.tlspolicy.log_lines import MAX_LINE_BYTES, LineHandler
from mailguard.tlspolicy.postfix_settings import faults, read_settings, resolver_copy
from mailguard.tlspolicy.service import _other_resolvers
from setup_site import ConfigDirectory
from tlspolicy_site import SETTINGS

GOOD_ADDRESS = ["inet:127.0.0.1:8461"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, None),
        ({"smtp_dns_support_level": ""}, "smtp_dns_support_level=dnssec"),
        ({"smtp_dns_support_level": "disabled"}, "smtp_dns_support_level=dnssec"),
        ({"smtp_dns_support_level": "enabled"}, "smtp_dns_support_level=dnssec"),
        ({"smtp_dns_support_level": "DNSSEC"}, None),
        ({"smtp_host_lookup": "native"}, "smtp_host_lookup=dns"),
        ({"smtp_host_lookup": "dns, native"}, None),
        ({"smtp_tls_security_level": ""}, "smtp_tls_security_level=dane"),
        ({"smtp_tls_security_level": "may"}, None),
        ({"smtp_tls_security_level": "Dane"}, None),
        *(
            ({"smtp_tls_security_level": level}, 'mixed = "dane-only"')
            for level in ("encrypt", "verify", "secure", "fingerprint", "dane-only", "Encrypt")
        ),
        ({"smtp_tls_CApath": ""}, "smtp_tls_CAfile=/"),
        ({"smtp_tls_CApath": "", "tls_append_default_CA": "yes"}, None),
        ({"smtp_tls_CApath": "", "smtp_tls_CAfile": "/etc/ssl/cert.pem"}, None),
        ({"smtp_tls_policy_maps": ""}, "smtp_tls_policy_maps=socketmap:inet:127.0.0.1:8461:QUERY"),
        (
            {"smtp_tls_policy_maps": "hash:/etc/postfix/tls, inline:{a.test=encrypt}"},
            "run: postconf -e 'smtp_tls_policy_maps=hash:/etc/postfix/tls, inline:{a.test=encrypt},"
            " socketmap:inet:127.0.0.1:8461:QUERY'",
        ),
        ({"smtp_tls_policy_maps": "socketmap:inet:127.0.0.1:8462:x"}, "smtp_tls_policy_maps="),
        ({"smtp_tls_policy_maps": "hash:/x, socketmap:inet:localhost:8461:x"}, None),
        ({"smtp_tls_policy_maps": "socketmap:inet:127.0.0.1:8461:QUERYwithTLSRPT"}, "needs Postfix 3.10"),
        (
            {"mail_version": "3.10.1", "smtp_tls_policy_maps": "socketmap:inet:127.0.0.1:8461:QUERYwithTLSRPT"},
            None,
        ),
        ({"mail_version": "3.3.0"}, "older than 3.4"),
        ({"mail_version": "3.11-20260101"}, None),
    ],
)
def test_settings_of_postfix(change: dict[str, str], said: str | None) -> None:
    found = faults({**SETTINGS, **change}, GOOD_ADDRESS)
    assert len(found) == (said is not None), found
    assert said is None or said in found[0]


def test_a_strict_site_that_has_said_so() -> None:
    for level in ("encrypt", "secure", "dane-only", "dane", "may"):
        assert not faults({**SETTINGS, "smtp_tls_security_level": level}, GOOD_ADDRESS, mixed=Mixed.DANE_ONLY)
    assert faults({**SETTINGS, "smtp_tls_security_level": "none"}, GOOD_ADDRESS, mixed=Mixed.DANE_ONLY)


@pytest.mark.parametrize(
    ("dns", "said"),
    [
        ({"nameservers": ["127.0.0.1"]}, "192.0.2.53"),
        ({"nameservers": ["127.0.0.1", "192.0.2.53"]}, None),
        ({}, None),
        ({"nameservers": ["127.0.0.1"], "port": 5353}, None),
    ],
)
def test_the_resolvers_of_postfix(tmp_path: Path, dns: dict[str, object], said: str | None) -> None:
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text("nameserver 127.0.0.1\nnameserver 192.0.2.53\n")
    found = list(_other_resolvers(DnsConfig.model_validate(dns), str(resolv_conf)))
    assert len(found) == (said is not None)
    assert said is None or said in found[0]


@pytest.mark.parametrize(
    ("copied", "dns", "said"),
    [
        ("127.0.0.1", {}, False),
        ("192.0.2.53", {}, True),
        ("192.0.2.53", {"nameservers": ["127.0.0.1"]}, True),
        ("127.0.0.1", {"nameservers": ["127.0.0.1"]}, False),
    ],
)
def test_the_copy_in_the_chroot(tmp_path: Path, copied: str, dns: dict[str, object], said: bool) -> None:
    """smtp(8) in a chroot goes by it, whatever /etc/resolv.conf has by now."""
    resolv_conf, copy = tmp_path / "resolv.conf", tmp_path / "copy"
    resolv_conf.write_text("nameserver 127.0.0.1\n")
    copy.write_text(f"nameserver {copied}\n")
    found = list(_other_resolvers(DnsConfig.model_validate(dns), str(resolv_conf), copy=str(copy)))
    assert len(found) == said
    assert all(f"192.0.2.53 of {copy}" in each and "systemctl restart postfix" in each for each in found)


@pytest.mark.skipif(POSTCONF is None, reason="postconf is not installed")
@pytest.mark.parametrize(
    ("chroot", "has_copy", "is_told"), [("y", True, True), ("y", False, False), ("n", True, False)]
)
def test_where_the_copy_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chroot: str, has_copy: bool, is_told: bool
) -> None:
    site = ConfigDirectory(tmp_path)
    site.write(chroot=chroot)
    with (site.path / "master.cf").open("a") as master:
        master.write(f"smtp unix - - {chroot} - - smtp\n")
    monkeypatch.setenv("MAIL_CONFIG", str(site.path))
    copy = site.queue / "etc/resolv.conf"
    if has_copy:
        copy.parent.mkdir()
        copy.write_text("nameserver 127.0.0.1\n")
    assert POSTCONF is not None
    assert resolver_copy(POSTCONF, read_settings(POSTCONF)) == (str(copy) if is_told else None)


def test_a_unix_socket_as_a_chrooted_postfix_names_it() -> None:
    maps = {**SETTINGS, "smtp_tls_policy_maps": "socketmap:unix:mailguard/tlspolicy:QUERY"}
    assert not faults(maps, ["unix:/var/spool/postfix/mailguard/tlspolicy"])
    assert faults(maps, ["unix:/run/mailguard/other"])


@pytest.mark.usefixtures("postfix_config")
def test_settings_of_the_real_postfix(tmp_path: Path) -> None:
    if not os.path.exists("/usr/sbin/postconf"):
        pytest.skip("Postfix is not installed")
    assert read_settings("/usr/sbin/postconf")["mail_version"][0] == "3"
    with pytest.raises(OSError, match="absent"):
        read_settings(str(tmp_path / "absent"))


# -- the log ------------------------------------------------------------------------------------------------------


def logged(as_json: bool, *texts: str, **fields: object) -> list[bytes]:
    read_end, write_end = os.pipe()
    clock = [0.0]
    handler = LineHandler(
        as_json=as_json, timestamps=True, descriptor=write_end, clock=lambda: clock[0], now=lambda: 0.0
    )
    logger = logging.Logger("test")
    logger.addHandler(handler)
    for text in texts:
        clock[0] += 1
        logger.warning(text, extra={"fields": fields})
    os.close(write_end)
    with open(read_end, "rb") as stream:
        return stream.read().splitlines()


def test_lines() -> None:
    (line,) = logged(
        False, "an event", plain="example.com", spaced="a b", quoted='a "b" \\', hostile="a\n\x1b[1m\u202e"
    )
    assert line == (
        b'time=1970-01-01T00:00:00Z level=warning event="an event" plain=example.com spaced="a b"'
        b' quoted="a \\"b\\" \\\\" hostile="a\\n\\x1b[1m\\u202e"'
    )
    (line,) = logged(True, "an event", number=3, hostile="a\n\x1b\u202e")
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00Z",
        "level": "warning",
        "event": "an event",
        "number": 3,
        "hostile": "a\n\x1b\u202e",
    }
    assert line.isascii()


def test_long_and_many_lines_are_bounded() -> None:
    (line,) = logged(False, "e", **{f"f{number}": "x" * 5_000 for number in range(20)})
    assert 2_000 < len(line) <= MAX_LINE_BYTES
    lines = logged(False, *["again"] * 100)
    assert len(lines) == 10 + 10, "ten in a minute, and the rest is counted"
    assert b"not_logged=51" in lines[10]


def test_what_goes_wrong_on_the_event_loop_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """asyncio would write a traceback each second in which no file is left for a client."""

    async def run(*_: object, **__: object) -> None:
        error = OSError(24, "Too many open files")
        context = {"message": "socket.accept() out of system resource", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)

    for name in ("mailguard", "asyncio"):
        log = logging.getLogger(name)
        monkeypatch.setattr(log, "propagate", log.propagate)
        monkeypatch.setattr(log, "level", log.level)
    monkeypatch.setattr(cli, "run", run)
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    config = tmp_path / "mailguard.toml"
    config.write_text('authserv_id = "mx.us.test"\n[[listeners]]\naddress = "unix:/run/m.sock"\n')
    cli._serve(str(config))
    assert capfd.readouterr().err == (
        'level=error event="socket.accept() out of system resource" error="OSError: [Errno 24] Too many open files"\n'
    )
