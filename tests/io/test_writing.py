"""save_file writes a file whole or not at all."""

import os
import socket
import subprocess
import sys

import pytest

import lstm_fastkernels as lfk
from cases import Case
from io_cases import same_tensors


def test_a_file_is_overwritten(path):
    one, two = Case(seed=1).fast(), Case(20, 20, seed=2).fast()
    lfk.save_file(two, path)
    lfk.save_file(one, path)
    same_tensors(lfk.load_file(path).state_dict(), one.state_dict())
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_the_mode_follows_the_umask(path, umask):
    before = os.umask(umask)
    try:
        lfk.save_file(Case().fast(), path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_link_keeps_pointing_to_the_file(tmp_path, path):
    (tmp_path / "elsewhere").mkdir()
    file = tmp_path / "elsewhere" / "file"
    path.symlink_to(file)
    for seed in (1, 2):  # a file that is not there yet, and one that is
        fast = Case(seed=seed).fast()
        lfk.save_file(fast, path)
        assert path.is_symlink()
        same_tensors(lfk.load_file(file).state_dict(), fast.state_dict())
        assert os.listdir(file.parent) == [file.name]


def test_what_is_no_file_is_left_alone(tmp_path, monkeypatch):
    fifo, socket_path, link = (tmp_path / name for name in ("fifo", "socket", "link"))
    os.mkfifo(fifo)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(socket_path))
    link.symlink_to(fifo)
    before = sorted(os.listdir(tmp_path))
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("it must not be opened"))
    for target in (tmp_path, fifo, socket_path, link, "/dev/null", "", "/"):
        with pytest.raises(ValueError, match="not a file"):
            lfk.save_file(Case().fast(), target)
    assert sorted(os.listdir(tmp_path)) == before


def test_links_in_a_circle_are_no_file(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.symlink_to(two)
    two.symlink_to(one)
    with pytest.raises(OSError, match="symbolic links"):
        lfk.save_file(Case().fast(), one)
    assert one.is_symlink()
    assert two.is_symlink()


def test_a_name_in_bytes(path):
    lfk.save_file(Case().fast(), os.fsencode(path))
    assert os.listdir(path.parent) == [path.name]


def test_a_folder_that_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        lfk.save_file(Case().fast(), tmp_path / "nowhere" / "model.safetensors")


@pytest.mark.parametrize("there", [True, False], ids=["old file", "no file"])
@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_an_interrupted_write_leaves_no_trace(path, function, there, monkeypatch):
    if there:
        path.write_bytes(b"old")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, function, interrupt)
    with pytest.raises(KeyboardInterrupt):
        lfk.save_file(Case().fast(), path)
    assert os.listdir(path.parent) == [path.name] * there
    assert not there or path.read_bytes() == b"old"


FULL_DISK = """
import resource, signal, sys
import lstm_fastkernels as lfk

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
fast = lfk.FastQuantLSTM(64, 64)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    lfk.save_file(fast, sys.argv[1])
except OSError as error:
    print(error)
"""


def test_a_write_that_fails_half_way_leaves_no_trace(path):
    path.write_bytes(b"old")
    process = subprocess.run(
        [sys.executable, "-c", FULL_DISK, path], capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    assert "too large" in process.stdout
    assert os.listdir(path.parent) == [path.name]
    assert path.read_bytes() == b"old"


def test_an_interrupt_after_the_write_is_passed_on(path, monkeypatch):
    replace = os.replace

    def interrupt_after(*names):
        replace(*names)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt_after)
    with pytest.raises(KeyboardInterrupt):
        lfk.save_file(Case().fast(), path)
    assert os.listdir(path.parent) == [path.name]


def test_what_is_written_is_on_the_disk_before_it_gets_its_name(path, monkeypatch):
    calls, sizes = [], []
    fsync, replace = os.fsync, os.replace

    def watch_fsync(handle):
        calls.append("fsync")
        sizes.append(os.fstat(handle).st_size)
        fsync(handle)

    def watch_replace(*names):
        calls.append("replace")
        replace(*names)

    monkeypatch.setattr(os, "fsync", watch_fsync)
    monkeypatch.setattr(os, "replace", watch_replace)
    lfk.save_file(Case(5, 4).fast(), path)  # less than Python's files keep back
    assert calls == ["fsync", "replace", "fsync"], "the file, its name, the folder"
    assert sizes[0] == path.stat().st_size
