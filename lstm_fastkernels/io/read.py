"""Reading files. Needs no torch: the NumPy runtime reads with it, too."""

import errno
import stat
from pathlib import Path


def read_file(path: Path) -> bytes:
    """The contents of a regular file.

    Raises OSError if it cannot be read, and for a FIFO or a device before it is opened: that would
    wait for a writer, or read without end.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # of a directory, reading says so
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path.read_bytes()
