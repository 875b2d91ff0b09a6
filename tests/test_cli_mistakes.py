"""Every command, called as it should not be or where it cannot work: a clear message, no traceback, the right code.

The commands are those of the real tree; command_rows.py tells how each is called. Each runs in a process of its own,
in a network of its own (command_host.py).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import click
import pytest

from command_host import Case, CommandHost, Outcome, Stream
from command_place import NOBODY, host, model, place
from command_rows import ROWS, Directory, File, Name, New, Reported, ReportedDirectory, Row
from command_tree import commands
from mailguard.cli.exit_code import ExitCode

__all__ = ["host", "model", "place"]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a network and users of its own need root")

ESCAPE = "\x1b"
TREE = [path[1:] for path, command, _ in commands() if not isinstance(command, click.Group)]
PATHS = [path for path in TREE if path in ROWS]
GROUPS = [path[1:] for path, command, _ in commands() if isinstance(command, click.Group)]
# Those that say nothing, such as a server, which has to have begun: until then it is no server that ends well.
SERVED_S = 3.0
# A command that waits for the network says so, and is interrupted then; one that does not is given so long.
INTERRUPTED_S = 6.0
# How long it may take to end then.
ENDS_S = 5.0
BAD_NAMES = [
    "",
    " ",
    "us test",
    "..",
    "us..test",
    "a" * 300 + ".test",
    "us\x1b[31m.test",
    "us\n.test",
    "us\udcff.test",
    "\N{ZERO WIDTH SPACE}",
    "[us.test",
    "us.test;id",
]


Run = Callable[..., Outcome]


@pytest.fixture
def run(host: CommandHost, place: Path) -> Run:
    """Run `mailguard WORDS` in the place; whatever happens, there is no traceback, and it ends as documented."""

    def run_checked(path: Sequence[str], words: Sequence[str], **more: object) -> Outcome:
        return checked(path, host.run(case(place, path, words, **more)))

    return run_checked


def case(place: Path, path: Sequence[str], words: Sequence[str], **more: object) -> Case:
    if ROWS[tuple(path)].is_server:
        more = {"interrupt_after_s": SERVED_S, **more}
    environment = {"HOME": str(place), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **more.pop("environment", {})}  # type: ignore[dict-item]
    return Case(arguments=[*path, *words], directory=str(place), environment=environment, **more)  # type: ignore[arg-type]


def checked(path: Sequence[str], done: Outcome) -> Outcome:
    assert "Traceback" not in done.err + done.out, done.err
    assert "Exception ignored" not in done.err, done.err
    documented = {int(code) for code in ExitCode} | set(ROWS[tuple(path)].codes)
    assert done.code in documented, (done.code, done.err)
    return done


def named(paths: Iterable[tuple[str, ...]]) -> list[object]:
    return [pytest.param(path, id=" ".join(path)) for path in paths]


def every(*kinds: type[str]) -> list[object]:
    """Each command that has words of one of the kinds."""
    return named(path for path in PATHS if not kinds or any(isinstance(word, kinds) for word in ROWS[path].words))


def replaced(words: Sequence[str], at: int, by: str) -> list[str]:
    return [by if number == at else word for number, word in enumerate(words)]


def places_of(row: Row, *kinds: type[str]) -> list[int]:
    return [number for number, word in enumerate(row.words) if isinstance(word, kinds)]


def refuses(done: Outcome, name: str, *said: str) -> None:
    """That the file or the name is told, in plain lines, and nothing is printed."""
    assert done.code in (ExitCode.USAGE, ExitCode.CONFIGURATION), (done.code, done.out, done.err)
    assert done.out == ""
    assert done.err.startswith("mailguard: ")
    assert all(line.startswith("mailguard: ") for line in done.err.splitlines())
    assert name in done.err
    assert any(text in done.err for text in said or ("",)), done.err
    assert is_plain(done.err)


def wrong_file(word: str, done: Outcome, name: str, *said: str) -> None:
    if not isinstance(word, (Reported, ReportedDirectory)):
        return refuses(done, name, *said)
    assert done.code in (ExitCode.FAIL, ExitCode.CONFIGURATION), (done.code, done.out, done.err)
    assert name in done.out
    assert any(text in done.out for text in said), done.out
    return None


def is_plain(text: str) -> bool:
    return all(char.isprintable() or char in "\n\t" for char in text)


# -- the table


def test_each_command_has_its_row() -> None:
    assert sorted(TREE) == sorted(ROWS)


def test_each_file_of_a_command_is_in_its_row() -> None:
    files = {"FILE": File, "CONFIG": File, "CERT": File, "CERT|HOST": File, "DIR": New, "DIRECTORY": (Directory, New)}
    left = []
    for path, command, ctx in commands():
        for parameter in command.params if path[1:] in ROWS else ():
            metavar = parameter.metavar or parameter.make_metavar(ctx).strip("[]")
            if metavar not in files or f"{' '.join(path[1:])} {parameter.opts[-1]}" in ELSEWHERE:
                continue
            words = ROWS[path[1:]].words
            if isinstance(parameter, click.Option):
                given = [words[at + 1] for at, word in enumerate(words) if word in parameter.opts]
            else:
                given = list(words)
            if not any(isinstance(word, (File, Directory, New)) for word in given):
                left.append(f"{' '.join(path)} {parameter.opts[-1]}")
    assert not left


# What is made, by the command or by Postfix, or is the name of a host, where there is no such file.
NEED_NOT_BE = {"quickstart mailguard.toml", "dane tlsa cert.pem", "test mailbox"}
# A Maildir.
MAY_BE_A_DIRECTORY = {"test mailbox"}
# Tried in a test of their own below.
ELSEWHERE = {
    "audit --write-baseline",
    "enforce --config",
    "key rotate --directory",
    "key rotate --state",
    "key test --config",
    "postconf --undo",
    "quickstart --undo",
}


@pytest.mark.parametrize("path", every())
def test_it_works_there(run: Run, path: tuple[str, ...]) -> None:
    """Else nothing that follows would mean anything. Into a file, nothing is coloured."""
    row = ROWS[path]
    done = run(path, row.words, has_network=row.is_server)
    assert done.code in row.codes, (done.code, done.out, done.err)
    assert ESCAPE not in done.out + done.err
    assert done.out or row.is_server or row.codes == (78,)


# -- files


@pytest.mark.parametrize("path", every(File, Directory))
def test_a_missing_file(run: Run, path: tuple[str, ...]) -> None:
    row = ROWS[path]
    for at in places_of(row, File, Directory):
        if f"{' '.join(path)} {row.words[at]}" in NEED_NOT_BE:
            continue
        done = run(path, replaced(row.words, at, "no-such-file"), has_network=False)
        wrong_file(row.words[at], done, "no-such-file", "No such file", "there is no such", "neither a file nor")


@pytest.mark.parametrize("path", every(File))
def test_an_unreadable_file(run: Run, place: Path, path: tuple[str, ...]) -> None:
    row = ROWS[path]
    give_to_nobody(place)
    for at in places_of(row, File):
        file = place / row.words[at]
        os.chown(file, 0, 0)
        file.chmod(0o600)
        done = run(path, row.words, user=NOBODY, has_network=row.is_server)
        wrong_file(row.words[at], done, row.words[at], "Permission denied")
        os.chown(file, NOBODY, NOBODY)


@pytest.mark.parametrize("path", every(File))
def test_a_directory_in_place_of_a_file(run: Run, place: Path, path: tuple[str, ...]) -> None:
    row = ROWS[path]
    (place / "directory").mkdir()
    for at in places_of(row, File):
        if f"{' '.join(path)} {row.words[at]}" in MAY_BE_A_DIRECTORY:
            continue
        done = run(path, replaced(row.words, at, "directory"), has_network=False)
        wrong_file(row.words[at], done, "directory", "Is a directory", "not a regular file")


@pytest.mark.parametrize("path", every(File))
@pytest.mark.parametrize(
    "octets",
    [b"", bytes(range(256)) * 64, b"\xff\xfe\0" * 5, b"[" * 10_000],
    ids=["empty", "binary", "bom", "nested"],
)
def test_a_file_with_something_else(run: Run, place: Path, path: tuple[str, ...], octets: bytes) -> None:
    """Where that is no error (an empty message, an empty list), it is a result."""
    row = ROWS[path]
    (place / "garbage").write_bytes(octets)
    (place / "garbage").chmod(0o600)
    for at in places_of(row, File):
        done = run(path, replaced(row.words, at, "garbage"), has_network=row.is_server)
        assert is_plain(done.err), done.err
        if done.code in (ExitCode.USAGE, ExitCode.CONFIGURATION) and row.codes != (78,):
            assert "garbage" in (done.out if isinstance(row.words[at], Reported) else done.err)
            assert done.out == "" or isinstance(row.words[at], Reported)


@pytest.mark.parametrize("path", every(Directory))
def test_a_file_in_place_of_a_directory(run: Run, path: tuple[str, ...]) -> None:
    row = ROWS[path]
    for at in places_of(row, Directory):
        wrong_file(row.words[at], run(path, replaced(row.words, at, "zone"), has_network=False), "zone", "irectory")


@pytest.mark.parametrize("path", every(New))
def test_a_place_that_cannot_be_written(run: Run, place: Path, path: tuple[str, ...]) -> None:
    row = ROWS[path]
    give_to_nobody(place)
    (place / "locked").mkdir(mode=0o755)
    applied = ["--apply"] if path in {("postconf",), ("quickstart",)} else []
    for at in places_of(row, New):
        # What is missing above it would be made, and cannot be below a file.
        for file, why in (("locked/new", "Permission denied"), ("zone/new", "Not a directory|File exists")):
            words = replaced([*row.words, *applied], at, file)
            if "--owner" in words:
                words[words.index("--owner") : words.index("--owner") + 2] = []
            done = run(path, words, user=NOBODY, has_network=False)
            assert done.code == ExitCode.CONFIGURATION, (done.code, done.out, done.err)
            assert file in done.err
            assert re.search(why, done.err), done.err


def give_to_nobody(place: Path) -> None:
    for file in (place, *place.rglob("*")):
        os.chown(file, NOBODY, NOBODY)


def test_a_baseline_that_cannot_be_written(run: Run) -> None:
    words = [*ROWS["audit",].words, "--write-baseline", "zone/new"]
    refuses(run(["audit"], words), "zone/new", "Not a directory")


@pytest.mark.parametrize("file", ["no-such-file", ".", "zone"])
@pytest.mark.parametrize("words", ["key test", "enforce --dry-run"])
def test_a_configuration_in_place_of_other_words(run: Run, words: str, file: str) -> None:
    path, options = words.split(" --")[0].split(), ["--dry-run"] if "--" in words else []
    refuses(run(path, [*options, "-c", file]), file)


@pytest.mark.parametrize("file", ["no-such-file", "zone", "keys"])
def test_an_undo_that_is_none(run: Run, file: str) -> None:
    refuses(run(["quickstart"], ["--undo", file]), file)
    refuses(run(["postconf"], ["--undo", file]), file)


# -- names, options, commands


@pytest.mark.parametrize("path", every(Name))
def test_a_name_that_is_none(run: Run, path: tuple[str, ...]) -> None:
    row = ROWS[path]
    for count, at in enumerate(places_of(row, Name)):
        for name in BAD_NAMES if count == 0 else BAD_NAMES[2:8]:
            refuses(run(path, replaced(row.words, at, name), has_network=False), "")
    # A dash begins an option; what is named so all the same comes after --.
    at = places_of(row, Name)[0]
    refuses(run(path, replaced(row.words, at, "-us.test"), has_network=False), "-u")


@pytest.mark.parametrize("path", every(Name))
def test_a_name_in_another_script(run: Run, path: tuple[str, ...]) -> None:
    row = ROWS[path]
    at = places_of(row, Name)[0]
    name = "b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.test"
    done = run(path, replaced(row.words, at, name), has_network=False)
    assert is_plain(done.err)


@pytest.mark.parametrize("path", every())
def test_an_unknown_option(run: Run, path: tuple[str, ...]) -> None:
    refuses(run(path, [*ROWS[path].words, "--no-such-option"]), "--no-such-option", "No such option")
    refuses(run(path, ["--hlep"]), "Did you mean", "--help")


@pytest.mark.parametrize("path", [pytest.param(path, id=" ".join(path) or "mailguard") for path in GROUPS])
def test_an_unknown_command(mailguard_command: Callable[..., Outcome], path: tuple[str, ...]) -> None:
    for words, said in (([], "Missing command"), (["chekc"], "No such command"), (["--hlep"], "Did you mean")):
        done = mailguard_command(*path, *words)
        assert done.code == ExitCode.USAGE
        assert (done.out, done.err.count("\n")) == ("", 1)
        assert said in done.err


# -- no network


NOT_KNOWN = re.compile(
    r"temperror|tempfail|TEMP|did not answer|no answer|no-answer|unknown|cannot|could not|not known|is known"
    r"|unreachable|name resolution"
)
ASKING = [pytest.param(path, id=" ".join(path)) for path in PATHS if ROWS[path].online is not None]


@pytest.mark.parametrize("path", ASKING)
def test_no_network(run: Run, path: tuple[str, ...]) -> None:
    row = ROWS[path]
    assert row.online is not None
    done = run(path, row.online, has_network=False)
    assert done.code in row.offline_codes, (done.code, done.out, done.err)
    assert NOT_KNOWN.search(done.out + done.err)
    assert "OSError" not in done.out + done.err


@pytest.mark.parametrize("path", ASKING)
def test_no_network_as_json(run: Run, path: tuple[str, ...]) -> None:
    row = ROWS[path]
    assert row.online is not None
    done = run(path, [*row.online, "--json"], has_network=False)
    assert done.code in row.offline_codes
    assert done.out or done.err.startswith("mailguard: ")
    if done.out:
        json.loads(done.out)


@pytest.fixture(scope="module")
def interrupted(host: CommandHost, model: Path) -> dict[tuple[str, ...], Outcome]:
    """Each command that waits, on a terminal, interrupted; all at once, for they do nothing."""
    started = {}
    for path in PATHS:
        row = ROWS[path]
        if (words := row.waits or row.online) is not None:
            more = {"stdin": Stream.SILENT, "stderr": Stream.TERMINAL, "interrupt_when_told": True}
            after = SERVED_S if row.why_no_progress else INTERRUPTED_S
            terminal = {"TERM": "xterm", "COLUMNS": "200"}
            started[path] = host.start(
                case(model, path, words, environment=terminal, interrupt_after_s=after, **more)
            )
    return {path: host.result(file) for path, file in started.items()}


WAITING = [path for path in PATHS if ROWS[path].waits or ROWS[path].online]


@pytest.mark.parametrize("path", named(WAITING))
def test_control_c_while_it_waits(interrupted: dict[tuple[str, ...], Outcome], path: tuple[str, ...]) -> None:
    done = checked(path, interrupted[path])
    assert done.was_interrupted, (done.code, done.seconds, done.err)
    if ROWS[path].is_server:
        assert done.code == ExitCode.PASS
    else:
        assert done.code == ExitCode.INTERRUPTED, done.err
        assert done.err.rstrip().endswith("mailguard: interrupted")
        assert done.out == ""
    assert done.seconds < ENDS_S, done.seconds


@pytest.mark.parametrize("path", named(path for path in WAITING if not ROWS[path].why_no_progress))
def test_what_is_waited_for_is_told(interrupted: dict[tuple[str, ...], Outcome], path: tuple[str, ...]) -> None:
    # What rich turns round, and the words behind it; or a bar.
    assert re.search(r"[\u2801-\u28ff]\x1b\[0m \S+|\u2501", interrupted[path].err), interrupted[path].err


# -- the standard streams


@pytest.mark.parametrize("path", every())
def test_the_reader_has_gone(run: Run, path: tuple[str, ...]) -> None:
    row = ROWS[path]
    done = run(path, row.words, stdout=Stream.BROKEN, has_network=row.is_server)
    assert done.code in {ExitCode.FAIL, *row.codes}
    assert "Broken pipe" not in done.err


@pytest.mark.parametrize("path", every())
def test_no_standard_output_or_input(run: Run, path: tuple[str, ...]) -> None:
    row = ROWS[path]
    done = run(path, row.words, stdout=Stream.CLOSED, stdin=Stream.CLOSED, has_network=row.is_server)
    assert done.code in {ExitCode.CONFIGURATION, *row.codes}
    done = run(path, row.words, stderr=Stream.CLOSED, has_network=row.is_server)
    assert done.code in {ExitCode.CONFIGURATION, *row.codes}


@pytest.mark.parametrize("path", every())
def test_the_disk_is_full(run: Run, path: tuple[str, ...]) -> None:
    row = ROWS[path]
    done = run(path, row.words, stdout=Stream.FULL, has_network=row.is_server)
    if row.is_server or row.codes == (78,):
        return
    assert (done.code, done.err.splitlines()[-1]) == (78, "mailguard: standard output: No space left on device")


@pytest.mark.parametrize("path", named(path for path in PATHS if not ROWS[path].is_server))
def test_what_cannot_be_told_changes_nothing(run: Run, path: tuple[str, ...]) -> None:
    row = ROWS[path]
    assert run(path, row.words, stderr=Stream.FULL).code in row.codes


@pytest.mark.parametrize("stderr", [Stream.FULL, Stream.BROKEN])
def test_a_mistake_that_cannot_be_told(run: Run, stderr: str) -> None:
    assert run(("verify",), ["nothing.eml"], stdout=Stream.FULL, stderr=stderr).code == ExitCode.USAGE


# -- what is shown


@pytest.mark.parametrize("path", every())
def test_colours_are_for_terminals(run: Run, path: tuple[str, ...]) -> None:
    row = ROWS[path]
    terminal = {"stdout": Stream.TERMINAL, "stderr": Stream.TERMINAL, "has_network": row.is_server}
    done = run(path, row.words, environment={"TERM": "xterm-256color", "NO_COLOR": "1"}, **terminal)
    assert not re.search(r"\x1b\[[\d;]*[34]\d", done.out + done.err)


def test_there_are_colours(run: Run) -> None:
    for path in (["check"], ["verify"], ["doctor"]):
        row = ROWS[tuple(path)]
        done = run(path, row.words, stdout=Stream.TERMINAL, has_network=False, environment={"TERM": "xterm-256color"})
        assert re.search(r"\x1b\[[\d;]*3\d", done.out), path


@pytest.mark.parametrize("path", named(path for path in PATHS if not ROWS[path].why_no_json))
def test_json(run: Run, path: tuple[str, ...]) -> None:
    row = ROWS[path]
    done = run(path, [*row.words, "--json"], has_network=False)
    assert done.code in row.codes
    if row.codes != (78,):
        json.loads(done.out)
    assert ESCAPE not in done.out
