"""Who may do what with a file that takes another one's place."""

import contextlib
import os
import stat

_ACL = "system.posix_acl_access"


def keep_access(handle: int, path: str, old: os.stat_result) -> None:
    """Gives an open file the owner, group, mode, ACL and extended attributes of the one at path.

    Where the owner or group cannot be kept, nobody gets a right that they did not have: without the
    group, its members and all others keep what both had.
    """
    for owner, group in ((-1, old.st_gid), (old.st_uid, -1)):
        with contextlib.suppress(OSError):
            os.fchown(handle, owner, group)
    new = os.fstat(handle)
    mode = stat.S_IMODE(old.st_mode)
    attributes = _attributes(path)
    if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
        mode &= 0o777  # set-user-id and set-group-id were the old ones'
    if new.st_gid != old.st_gid:
        both = 0 if _ACL in attributes else mode >> 3 & mode & 0o7
        mode = mode & 0o700 | both << 3 | both
        attributes.pop(_ACL, None)
    if _ACL not in attributes:
        with contextlib.suppress(OSError):
            os.removexattr(handle, _ACL)  # from the folder's default
    for name, value in attributes.items():
        # Some are the system's own, and not for everyone to write.
        with contextlib.nullcontext() if name == _ACL else contextlib.suppress(OSError):
            os.setxattr(handle, name, value)
    os.fchmod(handle, mode)


def _attributes(path: str) -> dict[str, bytes]:
    attributes = {}
    with contextlib.suppress(OSError):  # a file system without them
        for name in os.listxattr(path):
            with contextlib.suppress(OSError):
                attributes[name] = os.getxattr(path, name)
    return attributes
