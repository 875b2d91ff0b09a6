"""Identity: the user that the daemon becomes when root starts it. For good, and verified.

Left out: capabilities and no_new_privs, which are the service manager's (contrib/mailguard-milter.service).
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable
from dataclasses import dataclass

from mailguard_milter.refusal import EX_SOFTWARE, Refusal

__all__ = ["Identity"]


@dataclass(frozen=True, slots=True)
class Identity:
    """A user and all the groups it is in."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]

    @classmethod
    def to_become(cls, user: str) -> Identity:
        """Who to be: `user` where root started the process, else who it is already. Raises Refusal."""
        if os.geteuid() != 0:
            return cls(str(os.geteuid()), os.geteuid(), os.getegid(), tuple(os.getgroups()))
        try:
            entry = pwd.getpwnam(user)
        except KeyError:
            raise Refusal(
                f'there is no user "{user}", which the daemon becomes when root starts it; create it with:'
                f" adduser --system --group --no-create-home {user}"
            ) from None
        if entry.pw_uid == 0 or entry.pw_gid == 0:
            raise Refusal(f'"{user}" is root or in its group; set user to an account that owns nothing but the keys')
        return cls(user, entry.pw_uid, entry.pw_gid, tuple(os.getgrouplist(user, entry.pw_gid)))

    def become(self) -> None:
        """Give up root, with all its groups. Nothing happens where the process is not root. Raises Refusal."""
        if os.geteuid() != 0:
            return
        os.setgroups(self.groups)
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)
        if self._is_root_still():
            raise Refusal("root could not be given up; start the daemon as its user instead", EX_SOFTWARE)

    def _is_root_still(self) -> bool:
        if os.getresuid() != (self.uid,) * 3 or os.getresgid() != (self.gid,) * 3 or 0 in os.getgroups():
            return True
        regain: tuple[Callable[[], None], ...] = (
            lambda: os.setuid(0),
            lambda: os.setgid(0),
            lambda: os.setgroups([0]),
        )
        return any(map(_succeeds, regain))


def _succeeds(attempt: Callable[[], None]) -> bool:
    try:
        attempt()
    except OSError:
        return False
    return True


def group_id(name: str) -> int:
    """The number of a group. Raises Refusal."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise Refusal(f'there is no group "{name}"; correct the group of the listener, or create it') from None
