"""The 57 rows of authres-vectors, from the tests of dkim_verifier and go-msgauth (RFC 8601 Appendix B among them).

Of a stranger's field mailguard reads the authserv-id and no result. So each row tests that reading, and authres, the
second reader of the fields that mailguard writes: what it reads, and where it is known to read otherwise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import authres
import pytest
import yaml

from mailguard.authserv_id import OwnIds
from vectors import require

NUMBERS = {"lieser": range(50), "go_msgauth": range(7)}
ROWS = [(suite, number) for suite, numbers in NUMBERS.items() for number in numbers]
NAMES = [f"{suite} {number}" for suite, number in ROWS]
FOREIGN = OwnIds(["mx.us.test", "bücher.test"])

NO_ID = "there is no authserv-id, and the field is nobody's"
# What stands in the field where the row does not say it, or says that there is none.
IDS = {
    ("lieser", 18): NO_ID,
    ("lieser", 25): NO_ID,
    ("lieser", 26): NO_ID,
    ("lieser", 27): NO_ID,
    **{("lieser", number): "example.com" for number in (*range(20, 25), *range(28, 37))},
    # dkim_verifier refuses these unless it is told that the message is internationalized. A field that claims our id
    # is removed either way.
    ("lieser", 46): "éxamplé.org",
    ("lieser", 47): "the row holds question marks in place of the letters, and so no id that could be anybody's",
}
NOT_READ = {
    ("lieser", 10): "a method's version is not read if a comment follows it",
    ("lieser", 11): "an authserv-id in quotes is not read",
    ("lieser", 15): "a semicolon at the end is not read (RFC 8601 §2.2 has none there)",
    ("lieser", 17): "a colon needs quotes (RFC 8601 §2.2)",
    ("lieser", 18): "there is no authserv-id",
    ("lieser", 25): "there is no authserv-id",
    ("lieser", 26): "there is no authserv-id",
    ("lieser", 27): "there is no authserv-id",
    ("lieser", 35): "the row wants it refused: a parenthesis too many",
    ("lieser", 36): "the row wants it refused: a parenthesis too few",
    ("lieser", 45): "a colon needs quotes (RFC 8601 §2.2)",
    ("lieser", 46): "the row wants it refused: not ASCII",
    ("go_msgauth", 5): "a semicolon at the end is not read (RFC 8601 §2.2 has none there)",
}
READ_OTHERWISE = {
    ("lieser", 1): ("a version that is not written is none, not 1", {"authres_version", "resinfo[0].method_version"}),
    ("lieser", 38): (
        "a quoted value that another property follows is lost",
        {"resinfo[0].properties.header.d"},
    ),
    **{
        ("lieser", number): ("the row wants it refused: authres reads any word as a result", {"refused"})
        for number in range(28, 35)
    },
    ("lieser", 47): (
        "the row wants it refused: question marks are letters of an authserv-id to authres",
        {"refused"},
    ),
}


@dataclass(frozen=True)
class Row:
    value: str
    """What stands after the colon, folds as CRLF, without the final CRLF."""
    expect: dict[str, object]
    """Names such as "resinfo[0].properties.header.d"; "refused" where nothing is to be read."""


@cache
def rows() -> dict[tuple[str, int], Row]:
    suites = yaml.safe_load((require("authres-vectors") / "vectors.yaml").read_text("utf-8"))
    found = {}
    for number, row in enumerate(suites["lieser"]):
        value = re.sub(r"\AAuthentication-Results:(.*)\r\n\Z", r"\1", row["header"], flags=re.DOTALL)
        found["lieser", number] = Row(value, row["expect"] or {"refused": True})
    for number, row in enumerate(suites["go_msgauth"]):
        expect = {"authserv_id": row["authserv_id"], "resinfo.length": len(row["results"])}
        for index, result in enumerate(row["results"]):
            for name, text in result.items():
                expect[f"resinfo[{index}].{f'properties.{name}' if '.' in name else name}"] = text
        found["go_msgauth", number] = Row(" " + row["value"], expect)
    return found


def test_no_row_is_left_out() -> None:
    assert list(rows()) == ROWS
    assert len(ROWS) == 57
    assert not NOT_READ.keys() & READ_OTHERWISE.keys()


@pytest.mark.attack("R01", "R06")
@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_the_authserv_id_is_read(row: tuple[str, int]) -> None:
    octets = rows()[row].value.encode("utf-8")
    authserv_id = str(rows()[row].expect.get("authserv_id") or IDS[row])
    assert not FOREIGN.claimed_by(octets)
    if " " in authserv_id:
        assert not OwnIds(["example.com", "example.org"]).claimed_by(octets)
        return
    assert OwnIds([authserv_id]).claimed_by(octets)
    assert OwnIds(["mx.us.test", authserv_id.upper()]).claimed_by(octets)
    assert not OwnIds([f"x.{authserv_id}", f"{authserv_id}.test"]).claimed_by(octets)


@pytest.mark.attack("R06")
def test_a_field_without_an_id_is_removed_where_it_names_us() -> None:
    assert OwnIds(["posteo.net"]).claimed_by(rows()["lieser", 25].value.encode())


def read(value: str) -> dict[str, object]:
    """What authres reads, under the names that the rows use."""
    header = authres.AuthenticationResultsHeader.parse(f"Authentication-Results:{value}")
    found: dict[str, object] = {
        "authserv_id": header.authserv_id,
        "authres_version": header.version and int(header.version),
        "resinfo.length": len(header.results),
    }
    for index, result in enumerate(header.results):
        found[f"resinfo[{index}].method"] = result.method
        found[f"resinfo[{index}].method_version"] = result.version and int(result.version)
        found[f"resinfo[{index}].result"] = result.result
        found[f"resinfo[{index}].reason"] = result.reason
        for one in result.properties:
            found[f"resinfo[{index}].properties.{one.type}.{one.name}"] = one.value
    return found


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_the_second_reader_reads_what_the_row_says(row: tuple[str, int]) -> None:
    value, expect = rows()[row].value, rows()[row].expect
    if row in NOT_READ:
        with pytest.raises(authres.AuthResError):
            read(value)
        assert ("refused" in expect) == NOT_READ[row].startswith("the row wants it refused")
        return
    found = read(value)
    differing = {name for name, wanted in expect.items() if found.get(name) != wanted}
    assert differing == READ_OTHERWISE.get(row, ("", set()))[1]
