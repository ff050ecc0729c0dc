"""Bytes that are no saved state."""

from collections.abc import Iterator

from malformed.parts import GOOD, Malformed


def states() -> Iterator[Malformed]:
    good = (GOOD / "saved.state").read_bytes()
    for name, contents, message in (
        ("state-empty", b"", "expected at least 32 bytes, got 0"),
        ("state-header", good[:31], "expected at least 32 bytes, got 31"),
        ("state-cut", good[:-1], "its sizes need another number of bytes"),
        ("state-longer", good + b"\0", "its sizes need another number of bytes"),
        ("state-mark", b"x" + good[1:], "bad magic number"),
        ("state-version", good[:8] + b"\7" + good[9:], "expected version 1, got 7"),
        ("state-layers", good[:12] + bytes(4) + good[16:], "its sizes are not possible"),
        ("state-sizes", good[:12] + b"\xff" * 20 + good[32:], "its sizes are not possible"),
        ("state-rows", good[:24] + b"\xff" * 8 + good[32:], "its sizes need another number"),
    ):
        cpp = f"saved state: {message}"
        yield Malformed(f"{name}.state", contents, cpp, (cpp,))
