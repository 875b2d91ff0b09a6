"""Tag=value lists (RFC 6376 §3.2): strict about names, duplicates and semicolons, exact about what stands where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailguard.errors import TagListError
from mailguard.taglist import TagList, base64_octets

GOOD = [
    ("one", b"a=b", {"a": b"b"}),
    ("semicolon at the end", b"a=b;", {"a": b"b"}),
    ("white space behind the last semicolon", b"a=b; \t\r\n ", {"a": b"b"}),
    ("order is kept", b"z=1;a=2", {"z": b"1", "a": b"2"}),
    ("white space around name and value", b" a = b ; c\t=\r\n d ", {"a": b"b", "c": b"d"}),
    ("fold inside the value", b"a=b\r\n c", {"a": b"b\r\n c"}),
    ("LF folds", b"a=\n b;\n c=d", {"a": b"b", "c": b"d"}),
    ("equals signs in the value", b"a=b==", {"a": b"b=="}),
    ("empty value", b"a=;b=", {"a": b"", "b": b""}),
    ("names differ by case", b"a=1;A=2", {"a": b"1", "A": b"2"}),
    ("digits and underscore in the name", b"a_1=x", {"a_1": b"x"}),
    ("8-bit value", b"d=b\xc3\xbccher.test", {"d": b"b\xc3\xbccher.test"}),
    ("128 tags", b";".join(b"t%d=" % n for n in range(128)), {f"t{n}": b"" for n in range(128)}),
    ("128 tags and a semicolon", b"".join(b"t%d=;" % n for n in range(128)), {f"t{n}": b"" for n in range(128)}),
]

BAD = [
    ("nothing", b""),
    ("white space", b" \r\n "),
    ("semicolon alone", b";"),
    ("equals sign alone", b"="),
    ("value without name", b"=b"),
    ("word without equals sign", b"a"),
    ("word in the middle", b"a=1; b; c=2"),
    ("missing semicolon is part of the value, then no equals sign", b"a=1; b"),
    ("two semicolons", b"a=1;;b=2"),
    ("semicolon first", b";a=1"),
    ("two semicolons at the end", b"a=1;;"),
    ("duplicate", b"d=bank.test; d=evil.test"),
    ("duplicate, unknown tag", b"zz=1; zz=1"),
    ("space in the name", b"d x=1"),
    ("fold in the name", b"d\r\n x=1"),
    ("digit first", b"1a=1"),
    ("underscore first", b"_a=1"),
    ("hyphen in the name", b"a-b=1"),
    ("8-bit name", b"\xc3\xbc=1"),
    ("NUL", b"a=1\0"),
    ("escape", b"a=\x1b[0m"),
    ("DEL", b"a=\x7f"),
    ("129 tags", b";".join(b"t%d=" % n for n in range(129))),
    ("65,537 octets", b"a=" + b"x" * 65_535),
]


@pytest.mark.parametrize(
    ("octets", "problem"),
    [
        (b"", "the tag list is empty"),
        (b" \t", "the tag list is empty"),
        (b";", "a semicolon follows no tag"),
        (b"a=1;;", "a semicolon follows no tag"),
        (b"a=1; ; b=2", "a semicolon follows no tag"),
        (b"a=1; b", "a tag has no equals sign"),
        (b"hello", "a tag has no equals sign"),
    ],
)
def test_what_is_missing(octets: bytes, problem: str) -> None:
    with pytest.raises(TagListError) as caught:
        TagList.parse(octets)
    assert str(caught.value) == problem


@pytest.mark.parametrize(("octets", "expected"), [row[1:] for row in GOOD], ids=[row[0] for row in GOOD])
def test_read(octets: bytes, expected: dict[str, bytes]) -> None:
    tags = TagList.parse(octets)
    assert tags == expected
    assert list(tags) == list(expected)


@pytest.mark.attack("D29")
@pytest.mark.parametrize("octets", [row[1] for row in BAD], ids=[row[0] for row in BAD])
def test_refused(octets: bytes) -> None:
    with pytest.raises(TagListError):
        TagList.parse(octets)


WITHOUT_VALUE = [
    ("folded", b" v=1;\r\n b = ab\r\n cd ; c=x", b" v=1;\r\n b =; c=x"),
    ("first", b"b=ab; c=x", b"b=; c=x"),
    ("last", b"c=x; b= ab ", b"c=x; b="),
    ("last, semicolon and white space", b"c=x; b=ab; \r\n ", b"c=x; b=; \r\n "),
    ("equals signs in the value", b"b=ab==;c=b=", b"b=;c=b="),
    ("empty already", b"b=;c=x", b"b=;c=x"),
    ("the same text elsewhere", b"bb=ab;b=ab;c=b=ab", b"bb=ab;b=;c=b=ab"),
]


@pytest.mark.parametrize(
    ("octets", "left"), [row[1:] for row in WITHOUT_VALUE], ids=[row[0] for row in WITHOUT_VALUE]
)
def test_a_value_is_deleted_with_the_white_space_around_it_and_nothing_else(octets: bytes, left: bytes) -> None:
    tags = TagList.parse(octets)
    assert tags.without_value("b") == left
    assert tags.without_value("b") == left


def test_compact_is_without_any_white_space() -> None:
    assert TagList.parse(b"b = a\r\n b\tc d ; c=x").compact("b") == b"abcd"


def test_an_error_repeats_little_of_a_strangers_name() -> None:
    name = b"a" * 5000
    with pytest.raises(TagListError) as caught:
        TagList.parse(name + b"=1;" + name + b"=2")
    assert len(str(caught.value)) < 100


@given(
    st.binary()
    | st.lists(st.sampled_from([b"a", b"b=", b"=", b";", b" ", b"\r\n ", b"x", b"\0", b"\xff"])).map(b"".join)
)
def test_octets_become_tags_or_tag_list_error(octets: bytes) -> None:
    try:
        tags = TagList.parse(octets)
    except TagListError:
        return
    assert tags
    for name, value in tags.items():
        left = tags.without_value(name)
        assert TagList.parse(left) == {**tags, name: b""}
        size = len(octets) - len(left)
        assert any(
            octets[at - 1 : at] == b"="
            and octets[at : at + size].strip(b" \t\r\n") == value
            and octets[at + size : at + size + 1] in (b";", b"")
            and octets[:at] + octets[at + size :] == left
            for at in range(1, len(octets) + 1)
        )


NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,8}", fullmatch=True)
VALUES = st.text(alphabet="abc=/+,:0@.é", max_size=12).map(str.encode)
SPACE = st.sampled_from([b"", b" ", b"\t", b"\r\n ", b" \r\n\t "])


@given(st.dictionaries(NAMES, VALUES, min_size=1, max_size=20), SPACE, SPACE, st.booleans())
def test_what_is_formatted_is_read_back(tags: dict[str, bytes], before: bytes, after: bytes, last: bool) -> None:
    text = b";".join(before + name.encode() + after + b"=" + before + value + after for name, value in tags.items())
    found = TagList.parse(text + (b";" if last else b""))
    assert found == tags


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        *((b"", b""), (b"YQ==", b"a"), (b"YWI=", b"ab"), (b"YWJj", b"abc"), (b"YWJjYQ==", b"abca")),
        # What RFC 6376 §2.10 allows besides.
        *((b"YQ", b"a"), (b"YQ=", b"a"), (b"YWI", b"ab"), (b"YWI==", b"ab"), (b"YWJj=", b"abc"), (b"YWJj==", b"abc")),
    ],
)
def test_base64(text: bytes, octets: bytes) -> None:
    assert base64_octets(text) == octets


@pytest.mark.parametrize(
    "text",
    [
        *(b"Y", b"Y===", b"YWJjY", b"YQ===", b"YWJj===", b"YWJj====", b"YWJj========", b"=", b"==", b"===="),
        *(b"Y=Q=", b"YQ==YWJj", b"YW$j", b"YW j", b"Y-_j", b"YW\xe9j"),
    ],
)
def test_what_is_not_base64(text: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        base64_octets(text)
