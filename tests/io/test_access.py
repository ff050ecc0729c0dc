"""A file that is replaced keeps who may do what with it."""

import os
import stat
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from lstm_fastkernels.io.atomic import write_atomically

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may give files away")
ACL = "system.posix_acl_access"


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask():
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o666, 0o444, 0o604, 0o777])
def test_the_mode_stays(path, mode, umask):
    for mask in (0o000, 0o022, 0o077, 0o777):
        path.write_bytes(b"old")
        path.chmod(mode)
        umask(mask)
        write_atomically(path, b"new")
        umask(0o022)
        assert path.read_bytes() == b"new"
        assert mode_of(path) == mode
        path.unlink()


def test_the_mode_behind_a_link_stays(tmp_path, path):
    file = tmp_path / "file"
    file.write_bytes(b"old")
    file.chmod(0o600)
    path.symlink_to(file)
    write_atomically(path, b"new")
    assert mode_of(file) == 0o600


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o604])
def test_nobody_else_may_read_it_while_it_is_written(path, mode, umask, monkeypatch):
    """At each call that changes something, what is there may do no more than the old file."""
    umask(0)
    path.write_bytes(b"old")
    path.chmod(mode)
    seen = []

    def watched(name):
        call = getattr(os, name)

        def run(*arguments, **options):
            result = call(*arguments, **options)
            seen.extend(mode_of(file) for file in path.parent.iterdir() if file != path)
            return result

        monkeypatch.setattr(os, name, run)

    for name in ("open", "fstat", "fchown", "fchmod", "fsync"):
        watched(name)
    write_atomically(path, b"new")
    assert seen
    assert not [oct(found) for found in seen if found & ~mode]


@needs_root
def test_the_owner_stays(path):
    path.write_bytes(b"old")
    os.chown(path, 1234, 2345)
    path.chmod(0o4750)
    write_atomically(path, b"new")
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 2345)
    assert mode_of(path) == 0o4750


AS_ANOTHER = """
import os, sys
from lstm_fastkernels.io.atomic import write_atomically

os.umask(0)
os.setgroups([int(group) for group in sys.argv[2:]])
os.setresgid(2345, 2345, 2345)
os.setresuid(1234, 1234, 1234)
write_atomically(sys.argv[1], b"new")
"""


@pytest.fixture
def open_folder():
    """In which anyone may write; tmp_path lies in a folder that is its user's alone."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)


@needs_root
@pytest.mark.parametrize(
    ("groups", "mode", "expected"),
    [
        ([], 0o660, 0o600),  # the new group must not get what the old one had
        ([], 0o644, 0o644),
        ([], 0o604, 0o600),  # nor the old group what others have
        ([], 0o6755, 0o755),
        ([77], 0o660, 0o660),
        ([77], 0o604, 0o604),
        ([77], 0o4770, 0o770),
    ],
)
def test_an_owner_that_cannot_stay(open_folder, groups, mode, expected):
    path = open_folder / "file"
    path.write_bytes(b"old")
    os.chown(path, 55, 77)
    path.chmod(mode)
    command = [sys.executable, "-c", AS_ANOTHER, path, *map(str, groups)]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert path.read_bytes() == b"new"
    assert path.stat().st_uid == 1234
    assert path.stat().st_gid == (77 if groups else 2345)
    assert oct(mode_of(path)) == oct(expected)


def set_or_skip(path, name, value):
    try:
        os.setxattr(path, name, value)
    except OSError as error:
        pytest.skip(f"no {name} here: {error}")


def access_list(user):
    """rw for the owner, r for a user, nothing for the group and others."""
    everyone = 0xFFFFFFFF
    entries = [(1, 6, everyone), (2, 4, user), (4, 0, everyone), (16, 4, everyone)]
    packed = b"".join(struct.pack("<HHI", *entry) for entry in [*entries, (32, 0, everyone)])
    return struct.pack("<I", 2) + packed


def test_attributes_stay(path):
    path.write_bytes(b"old")
    set_or_skip(path, "user.origin", b"a training run")
    write_atomically(path, b"new")
    assert os.getxattr(path, "user.origin") == b"a training run"


def test_access_lists_stay(path):
    path.write_bytes(b"old")
    path.chmod(0o600)
    set_or_skip(path, ACL, access_list(1234))
    write_atomically(path, b"new")
    assert os.getxattr(path, ACL) == access_list(1234)


def test_a_folder_gives_no_access_that_the_old_file_did_not(path):
    path.write_bytes(b"old")
    path.chmod(0o640)
    set_or_skip(path.parent, "system.posix_acl_default", access_list(1234))
    write_atomically(path, b"new")
    assert ACL not in os.listxattr(path)
    assert mode_of(path) == 0o640
