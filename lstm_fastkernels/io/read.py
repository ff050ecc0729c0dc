"""Reading files. Needs no torch: the NumPy runtime reads with it, too."""

import errno
import stat
from pathlib import Path
from typing import BinaryIO


def open_file(path: Path) -> BinaryIO:
    """A regular file, open for reading.

    Raises OSError if it cannot be opened, and for a FIFO or a device before it is opened: that
    would wait for a writer, or read without end.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # of a directory, opening says so
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path.open("rb")


def read_file(path: Path) -> bytes:
    """The contents of a regular file; OSError as open_file raises it, and if reading fails."""
    with open_file(path) as file:
        return file.read()
