"""Fixtures that several files share."""

from hypothesis import HealthCheck, settings

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

# How long an example takes, 200 ms by default, says how busy the machine is. Costs are measured as CPU time, by tests
# of their own.
settings.register_profile("mailguard", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mailguard")
