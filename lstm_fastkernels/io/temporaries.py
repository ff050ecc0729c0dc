"""Files that are being written, and what processes that were killed left of theirs.

A temporary is locked as long as its writer has it open: one that is not locked is nobody's.
"""

import contextlib
import fcntl
import os
import re
import secrets

_NAME = re.compile(r"\.lstm_fastkernels-[0-9a-f]{16}\.tmp")


def create(folder: str, mode: int) -> tuple[str, int]:
    """A new temporary in the folder: its path, and its handle for writing."""
    while True:
        path = os.path.join(folder, f".lstm_fastkernels-{secrets.token_hex(8)}.tmp")
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        if _claim(path, handle):
            return path, handle
        os.close(handle)


def _claim(path: str, handle: int) -> bool:
    """Locks a new temporary; False if another process has just reclaimed it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks, on which nothing is reclaimed
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def reclaim(folder: str) -> None:
    """Removes what killed processes left in the folder, as far as that is permitted."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        left = [e.path for e in entries if _NAME.fullmatch(e.name) and e.is_file()]
        for path in left:
            with contextlib.suppress(OSError):
                _remove_unlocked(path)


def _remove_unlocked(path: str) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    finally:
        os.close(handle)
