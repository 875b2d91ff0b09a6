"""What `mailguard senders import` makes of tables beside a pattern by which each address is the login of that name.

It grants nothing that Postfix's smtpd refuses, and where it has read all, it refuses nothing that smtpd accepts.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli_process import Command
from mailguard.config import load
from mailguard.sender_sources import open_senders
from sandbox import PostfixSandbox
from sandbox_place import make_public_directory, write_file

pytestmark = pytest.mark.postfix

ALICE, BOB, FORWARDING = "alice@us.test", "bob@us.test", "forwarding@us.test"
TABLES = {
    "own": "/^(.*)$/   ${1}\n",
    "entries": f"sales@us.test {ALICE}\n{FORWARDING} {ALICE}\nlocal {ALICE}\n",
    "whole": f"@us.test {ALICE}\nsales@us.test {ALICE}\n",
    "more": f"press@us.test {BOB}\n",
}
ADDRESSES = (ALICE, BOB, FORWARDING, *(f"{name}@us.test" for name in ("sales", "press", "local", "new")))
# id: (value, the exit code of import, what it says)
CASES = {
    "pattern last": ("texthash:{0}/entries, texthash:{0}/more, regexp:{0}/own", 0, ""),
    "pattern between": (
        "texthash:{0}/entries, regexp:{0}/own, texthash:{0}/more",
        0,
        "# not used: texthash:{0}/more ",
    ),
    "pattern first": ("regexp:{0}/own, texthash:{0}/whole, ldap:/x", 0, "# not used: texthash:{0}/whole "),
    "pattern in a union": ("unionmap:{{ texthash:{0}/entries, regexp:{0}/own }}", 0, ""),
    "whole domain": ("texthash:{0}/more, texthash:{0}/whole, regexp:{0}/own", 1, "whole domains (@us.test)"),
    "whole domain in a union": ("unionmap:{{ texthash:{0}/whole, regexp:{0}/own }}", 1, "whole domains (@us.test)"),
    "before a union": ("texthash:{0}/entries, unionmap:{{ texthash:{0}/more, regexp:{0}/own }}", 1, "decides before"),
    "cannot be listed": ("sqlite:{0}/x.cf, regexp:{0}/own", 1, "cannot be seen"),
    "cannot be read": ("texthash:{0}/missing, regexp:{0}/own", 1, "missing cannot be read"),
}


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    made = make_public_directory("mailguard-import-")
    for name, text in TABLES.items():
        write_file(made / name, text)
        os.utime(made / name, (0, 0))
    yield made
    shutil.rmtree(made)


@pytest.mark.parametrize(("value", "code", "said"), CASES.values(), ids=CASES)
def test_nothing_is_granted_that_smtpd_refuses(
    mailguard_command: Command, tmp_path: Path, directory: Path, value: str, code: int, said: str
) -> None:
    maps = value.format(directory)
    settings = {
        "smtpd_sender_login_maps": maps,
        "smtpd_sender_restrictions": "reject_authenticated_sender_login_mismatch",
        "smtpd_delay_reject": "no",
        "mydestination": "us.test",
        "myorigin": "us.test",
        "local_transport": "virtual",
    }
    for name, text in (
        ("main.cf", "".join(f"{key} = {each}\n" for key, each in settings.items())),
        ("master.cf", ""),
    ):
        write_file(tmp_path / name, text)
        os.utime(tmp_path / name, (0, 0))
    done = mailguard_command("senders", "import", "--config-directory", tmp_path)
    assert (done.code, done.err) == (code, "")
    assert said.format(directory) in done.out
    write_file(tmp_path / "mailguard.toml", done.out)
    senders = open_senders(load(tmp_path / "mailguard.toml").senders)
    assert senders is not None
    if code and "whole domain" not in said:
        return  # what Postfix itself cannot read, or only some of which can be shown here
    with PostfixSandbox(main=settings) as postfix:
        for login in (ALICE, BOB, FORWARDING):
            with postfix.session("submission", login=login) as client:
                for address in ADDRESSES:
                    accepted = client.docmd("MAIL", f"FROM:<{address}>")[0] == 250
                    client.docmd("RSET")
                    said_here = senders.ask(login.encode(), address.encode())
                    if not code:
                        assert said_here.is_granted == accepted, (login, address)
                    # Of a table that is left out, whose address it is cannot be known.
                    assert accepted or not said_here.is_granted or login == address, (login, address)
    senders.close()
