"""Who may send as whom: what the real smtpd says with smtpd_sender_login_maps, and LoginMaps with the same."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from mailguard.domain import Domain
from mailguard.senders.identity import Address, Login, LoginRules, parse_address
from mailguard.senders.login_maps import LoginMaps
from mailguard.senders.map_list import TableOptions, open_tables
from sandbox import PostfixSandbox
from sandbox_place import make_public_directory, write_file

pytestmark = pytest.mark.postfix

ENTRIES = """\
alice@us.test       alice@us.test, bob@us.test
Bob@US.test         bob@us.test
@us.test            postmaster@us.test
sales               alice@us.test carol
alice+own@us.test   bob@us.test
"a b"@us.test       alice@us.test
tag@us.test         carol
dup@us.test         alice@us.test
@wild.test          carol
x@wild.test         alice@us.test
commas@us.test      ,,
postmaster          carol
"""
LATER = "{bob@us.test = alice@us.test}, {later@us.test = alice@us.test}, {x+y@wild.test = bob@us.test}"
LOGINS = ("alice@us.test", "ALICE@us.test", "bob@us.test", "carol", "CAROL", "postmaster@us.test", "stranger")
ADDRESSES = (
    "alice@us.test",
    "Alice@US.Test",
    "alice+tag@us.test",
    "alice+own@us.test",
    "bob@us.test",
    "new@us.test",
    "sales@us.test",
    "sales+x@us.test",
    "sales@other.test",
    '"a b"@us.test',
    '"alice"@us.test',
    "tag+a+b@us.test",
    "dup@us.test",
    "later@us.test",
    "x@wild.test",
    "x+y@wild.test",
    "x+z@wild.test",
    "y@wild.test",
    "y@sub.wild.test",
    "commas@us.test",
    "postmaster@us.test",
    "+tag@us.test",
    "nobody@other.test",
)


class Site:
    """Postfix with these tables, and a source for the same."""

    def __init__(self, postfix: PostfixSandbox, source: LoginMaps) -> None:
        self.postfix = postfix
        self.source = source

    def accepts(self, login: str, address: str) -> bool:
        """Whether smtpd takes MAIL FROM of a client with this login."""
        with self.postfix.session("submission", login=login) as client:
            code, text = client.docmd("MAIL", f"FROM:<{address}>")
            assert code in (250, 553), (login, address, code, text)
            return code == 250

    def grants(self, login: str, address: str) -> bool:
        who, what = LoginRules().login(login), parse_address(address)
        assert isinstance(who, Login)
        assert isinstance(what, Address)
        return self.source.may_use(who, what).is_granted


@pytest.fixture(scope="module", params=["+", ""])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    directory = make_public_directory("mailguard-maps-")
    file = directory / "logins"
    write_file(file, ENTRIES)
    os.utime(file, (0, 0))
    value = f"texthash:{file}, inline:{{ {LATER} }}"
    settings = {
        "smtpd_sender_login_maps": value,
        "smtpd_sender_restrictions": "reject_authenticated_sender_login_mismatch",
        "smtpd_delay_reject": "no",
        "recipient_delimiter": request.param,
        "mydestination": "us.test",
        "myorigin": "us.test",
        "local_transport": "virtual",
    }
    source = LoginMaps(
        open_tables(value, TableOptions(clock=lambda: 0.0, deadline_s=3.0)),
        rules=LoginRules(),
        delimiters=request.param,
        local_domains=[Domain.parse("us.test")],
    )
    with PostfixSandbox(main=settings) as postfix:
        yield Site(postfix, source)
    shutil.rmtree(directory)


@pytest.mark.attack("L02")
@pytest.mark.parametrize("login", LOGINS)
def test_we_grant_what_smtpd_accepts(site: Site, login: str) -> None:
    theirs = {address: site.accepts(login, address) for address in ADDRESSES}
    ours = {address: site.grants(login, address) for address in ADDRESSES}
    assert ours == theirs
    if login == "alice@us.test":
        assert 0 < sum(theirs.values()) < len(theirs)
