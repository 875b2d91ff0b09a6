"""`mailguard tlspolicy`: what TLS Postfix is to demand of each destination, as a server and for people."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket

import click

from mailguard.cli.exit_code import ExitCode
from mailguard.cli.host_options import CONFIG_OPTION
from mailguard.cli.json_report import print_json
from mailguard.cli.parameters import JSON_OPTION
from mailguard.cli.printable import printable
from mailguard.cli.standard_error import tell
from mailguard.cli.waiting import waiting
from mailguard.config import Config, load
from mailguard.config_values import SocketAddress
from mailguard.errors import ConfigError
from mailguard.tlspolicy.listening import CannotListen
from mailguard.tlspolicy.log_lines import LineHandler
from mailguard.tlspolicy.next_hop import NextHop, parse_key
from mailguard.tlspolicy.override import DEFAULT
from mailguard.tlspolicy.policy_text import reply_to
from mailguard.tlspolicy.service import check_surroundings, look_up, overrides_of, run
from mailguard.tlspolicy.socketmap import Reply, ReplyStatus, encode_request, parse_reply

__all__ = ["tlspolicy"]

# As long as Postfix waits for a socketmap.
SERVER_PATIENCE_S = 100.0
_EXIT_CODES = {
    ReplyStatus.OK: ExitCode.PASS,
    ReplyStatus.NOT_FOUND: ExitCode.FAIL,
    ReplyStatus.TEMPORARY: ExitCode.TEMPORARY,
    ReplyStatus.TIMEOUT: ExitCode.TEMPORARY,
    ReplyStatus.PERMANENT: ExitCode.TEMPORARY,
}
_FAMILIES = {"unix": socket.AF_UNIX, "inet": socket.AF_INET, "inet6": socket.AF_INET6}


@click.group(no_args_is_help=False)
def tlspolicy() -> None:
    """What TLS Postfix demands of each destination: DANE first, then MTA-STS."""


@tlspolicy.command()
@CONFIG_OPTION
def serve(config_file: str) -> ExitCode:
    """Answer Postfix's smtp_tls_policy_maps until SIGTERM. docs/tlspolicy.md says what goes into main.cf.

    SIGHUP has it read its configuration and /etc/resolv.conf again. Ends with 75 if it cannot listen or go on, for
    what may pass.
    """
    # One that comes too early would end it, which systemd takes for an end in good order.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP,))
    try:
        _serve(config_file)
    except (CannotListen, OSError) as error:
        # Not the code of a bad configuration, after which systemd would not start it again.
        tell((isinstance(error, OSError) and error.strerror) or str(error))
        return ExitCode.TEMPORARY
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return ExitCode.PASS


def _serve(config_file: str) -> None:
    config = load(config_file)
    # What is wrong with them is said before anything is begun.
    overrides_of(config)
    handler = LineHandler(as_json=config.log.format == "json", timestamps="JOURNAL_STREAM" not in os.environ)
    # What the event loop is refused, a file for a client that comes, is a line as all else.
    logs = [logging.getLogger(name) for name in ("mailguard", "asyncio")]
    for log in logs:
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False
    try:
        asyncio.run(
            run(
                config,
                read=lambda: load(config_file),
                ready=lambda: _notify("READY=1"),
                stopping=lambda: _notify("STOPPING=1"),
            )
        )
    finally:
        for log in logs:
            log.removeHandler(handler)


@tlspolicy.command()
@click.argument("key")
@CONFIG_OPTION
@click.option("--tlsrpt", is_flag=True, help="With what Postfix 3.10 reports (the map QUERYwithTLSRPT).")
@click.option("--server", is_flag=True, help="Ask the server that runs, not the DNS and the policy host.")
@JSON_OPTION
def query(key: str, config_file: str, tlsrpt: bool, server: bool, as_json: bool) -> ExitCode:
    """Show what Postfix is told of KEY: example.com, [mail.example.com]:587, .example.com.

    Ends with 0 if something is demanded, 1 if not, 75 if it cannot be said now, so that Postfix keeps the mail.
    """
    config = load(config_file)
    if server:
        map_name = "QUERYwithTLSRPT" if tlsrpt else "QUERY"
        with waiting(f"asking {config.tlspolicy.listen[0]}"):
            reply, reason, detail = _asked(config, map_name, key), "", f"from {config.tlspolicy.listen[0]}"
    else:
        reply, reason, detail = _found(config, key, with_tlsrpt=tlsrpt)
    if as_json:
        found = {"key": key, "status": reply.status.value, "text": reply.text, "reason": reason, "detail": detail}
        print_json(found)
    else:
        # Who took the port while the server was down says what he likes.
        click.echo(f"{key}: {reply.status.value}{' ' if reply.text else ''}{printable(reply.text)}")
        if detail and detail != reply.text:
            click.echo(f"  {f'{reason}: ' if reason else ''}{detail}")
    return _EXIT_CODES[reply.status]


@tlspolicy.command()
@CONFIG_OPTION
@JSON_OPTION
def check(config_file: str, as_json: bool) -> ExitCode:
    """Check what the server needs: a resolver that validates DNSSEC, and Postfix's settings.

    Ends with 0 if nothing is wrong, otherwise with 1.
    """
    config = load(config_file)
    overrides_of(config)
    with waiting("asking the resolver whether it validates DNSSEC"):
        validation, faults = check_surroundings(config)
    if as_json:
        found = {"resolver": validation.status.value, "detail": validation.message, "postfix": faults}
        print_json(found)
    else:
        click.echo(validation.message.rstrip())
        if faults is None:
            click.echo("There is no postconf: Postfix's settings were not examined.")
        for fault in faults or ():
            click.echo(f"{fault[0].upper()}{fault[1:]}.")
        if faults == []:
            click.echo("Postfix's settings are as they have to be.")
    return ExitCode.PASS if validation.status.is_reliable and not faults else ExitCode.FAIL


def _found(config: Config, key: str, *, with_tlsrpt: bool) -> tuple[Reply, str, str]:
    """What the server would say, from the configuration and from what is published now."""
    octets = os.fsencode(key)
    asked = parse_key(octets)
    said = overrides_of(config).policy_for(octets, asked)
    if said is not None:
        reply = Reply(ReplyStatus.NOT_FOUND) if said == DEFAULT else Reply(ReplyStatus.OK, said)
        return reply, "override", "the configuration says so"
    if asked is None:
        return Reply(ReplyStatus.NOT_FOUND), "", "it is no destination"
    if not isinstance(asked, NextHop):
        return Reply(ReplyStatus.NOT_FOUND), "parent", "what counts for subdomains is said of their own names"
    with waiting(f"asking the DNS about {key}"):
        decision = asyncio.run(look_up(config, asked))
    return reply_to(decision, with_tlsrpt=with_tlsrpt), decision.why.value, decision.detail


def _asked(config: Config, map_name: str, key: str) -> Reply:
    """What the server that runs says. Raises ConfigError where none does."""
    address = config.tlspolicy.listen[0]
    place = SocketAddress.parse(address)
    received, reply = b"", None
    try:
        with socket.socket(_FAMILIES[place.family], socket.SOCK_STREAM) as client:
            client.settimeout(SERVER_PATIENCE_S)
            client.connect(place.path if place.family == "unix" else (str(place.ip), place.port))
            client.sendall(encode_request(map_name.encode(), os.fsencode(key)))
            while reply is None:
                octets = client.recv(65_536)
                if not octets:
                    raise ConfigError(f"{address}: the connection was closed without a reply")
                received += octets
                reply = parse_reply(received)
    except OSError as error:
        raise ConfigError(f"{address}: {error.strerror or error}; does the server run?") from None
    except ValueError as error:
        raise ConfigError(f"{address}: {error}") from None
    return reply


def _notify(text: str) -> None:
    """Tell systemd, where it has started this (sd_notify(3))."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(text.encode(), "\0" + path[1:] if path.startswith("@") else path)
    except OSError:
        return  # a service manager that does not listen must not stop the mail
