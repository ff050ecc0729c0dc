"""Writing a file so that a reader sees the old one or the new one, never half of one."""

import contextlib
import os
import stat

from lstm_fastkernels.io.access import keep_access
from lstm_fastkernels.io.temporaries import create, reclaim


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes data to path, or to what path points to if it is a symbolic link.

    A file that is replaced keeps its owner, mode, ACL and extended attributes, as far as that is
    permitted; nobody gets rights that they did not have. If anything fails, an old file under that
    name stays as it was and nothing else is left behind. What a killed process leaves, a temporary
    named .lstm_fastkernels-*.tmp, is removed when next something is written into the folder. Raises
    OSError where the file cannot be written, ValueError where path is something else than a file.
    """
    target = os.path.realpath(os.fsdecode(path))
    old = _stat(target)
    if old and not stat.S_ISREG(old.st_mode):
        raise ValueError(f"{os.fspath(path)!r} exists and is not a file")
    folder = os.path.dirname(target)
    reclaim(folder)
    # The umask takes its share of the mode, as for any new file.
    temporary, handle = create(folder, 0o600 if old else 0o666)
    try:
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            if old:
                keep_access(handle, target, old)
            os.fsync(handle)
            os.replace(temporary, target)  # before the file is closed, which unlocks it
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _sync_folder(folder)


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _sync_folder(folder: str) -> None:
    """Makes the new name last through a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
