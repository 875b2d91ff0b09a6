"""Fixtures that several files share."""

from hypothesis import settings

from cli_process import keys, mailguard_command, prepared
from daemon_process import daemon
from engine_process import directory, engine, host, own_directory, pytest_generate_tests
from postfix_commands import postfix_config, without_the_machines

__all__ = [
    "daemon",
    "directory",
    "engine",
    "host",
    "keys",
    "mailguard_command",
    "own_directory",
    "postfix_config",
    "prepared",
    "pytest_generate_tests",
    "without_the_machines",
]

# The default of 200 ms for an example says nothing of the code where the machine stands still for longer.
settings.register_profile("mailguard", settings(), deadline=None)
settings.load_profile("mailguard")
