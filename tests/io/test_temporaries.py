"""What a killed save leaves behind is reclaimed; what another one is writing is left alone."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

from lstm_fastkernels.io.atomic import write_atomically

SLOW = """
import os, sys
from lstm_fastkernels.io.atomic import write_atomically

function = getattr(os, sys.argv[2])
def slow(*arguments):
    print("here", flush=True)
    sys.stdin.readline()
    return function(*arguments)
setattr(os, sys.argv[2], slow)
write_atomically(sys.argv[1], b"slow" * 1000)
"""


@contextmanager
def slow_writer(path, at="replace"):
    """A process that has stopped in the middle of writing to path, until it gets a line."""
    command = [sys.executable, "-c", SLOW, path, at]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"here\n"
        yield process


def kill(path, at="replace"):
    with slow_writer(path, at) as process:
        process.send_signal(signal.SIGKILL)


@pytest.mark.parametrize("at", ["fsync", "replace"])
def test_the_next_save_reclaims_what_a_killed_one_left(path, at):
    path.write_bytes(b"old")
    for other in ("model.safetensors", "another"):
        kill(path.with_name(other), at)
    left = set(os.listdir(path.parent)) - {path.name}
    assert len(left) in (1, 2), "the second killed one has reclaimed the first"
    assert all(name.startswith(".lstm_fastkernels-") for name in left)
    assert path.read_bytes() == b"old"
    write_atomically(path, b"new")
    assert os.listdir(path.parent) == [path.name]
    assert path.read_bytes() == b"new"


def test_a_live_writer_is_left_alone(path):
    kill(path)
    with slow_writer(path.with_name("slow")) as process:
        assert len(os.listdir(path.parent)) == 1, "the killed one's is gone, its own is there"
        (writing,) = os.listdir(path.parent)
        write_atomically(path, b"new")
        assert sorted(os.listdir(path.parent)) == sorted([writing, path.name])
        process.communicate(b"\n")
        assert process.returncode == 0
    assert path.with_name("slow").read_bytes() == b"slow" * 1000
    assert sorted(os.listdir(path.parent)) == [path.name, "slow"]


def test_only_its_own_files_are_reclaimed(path):
    others = {
        ".0123456789abcdef.tmp",
        ".lstm_fastkernels-notes.tmp",
        ".lstm_fastkernels-0123456789abcdef.tmp.bak",
        "lstm_fastkernels-0123456789abcdef.tmp",
        ".lstm_fastkernels-0123456789abcde.tmp",
    }
    for name in others:
        path.with_name(name).write_bytes(b"")
    folder, fifo, link = (path.with_name(f".lstm_fastkernels-{16 * c}.tmp") for c in "abc")
    folder.mkdir()
    os.mkfifo(fifo)
    link.symlink_to(path.with_name("precious"))
    path.with_name("precious").write_bytes(b"kept")
    before = set(os.listdir(path.parent))
    write_atomically(path, b"new")
    assert set(os.listdir(path.parent)) == before | {path.name}


STORM = """
import os, sys
from pathlib import Path
from lstm_fastkernels.io.atomic import write_atomically

folder, name = Path(sys.argv[1]), sys.argv[2]
for n in range(150):
    write_atomically(folder / "shared", name.encode() * 10_000)
    write_atomically(folder / name, str(n).encode())
    assert (folder / name).read_bytes() == str(n).encode()
    assert len(set((folder / "shared").read_bytes())) == 1
"""


def test_many_writers_at_once(tmp_path):
    names = "abc"
    writers = [
        subprocess.Popen([sys.executable, "-c", STORM, tmp_path, name], stderr=subprocess.PIPE)
        for name in names
    ]
    for writer in writers:
        _, errors = writer.communicate()
        assert writer.returncode == 0, errors.decode()
    assert sorted(os.listdir(tmp_path)) == [*names, "shared"]


def test_threads_leave_each_other_alone(tmp_path):
    failures = []

    def write(name):
        try:
            for n in range(100):
                write_atomically(tmp_path / name, str(n).encode())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=name) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert sorted(os.listdir(tmp_path)) == list("abcd")


def test_a_temporary_that_is_reclaimed_before_it_is_locked(path, monkeypatch):
    """Another process may find it between its creation and its lock: a new one is made."""
    opened = os.open
    lost = []

    def open_and_lose(name, flags, *arguments, **options):
        handle = opened(name, flags, *arguments, **options)
        if flags & os.O_CREAT and len(lost) < 3:
            lost.append(name)
            os.unlink(name)
        return handle

    monkeypatch.setattr(os, "open", open_and_lose)
    write_atomically(path, b"new")
    assert len(lost) == 3
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == [path.name]


def test_a_file_system_without_locks(path, monkeypatch):
    """Nothing is reclaimed there, since nobody knows who is alive; files are written."""
    kill(path)
    (left,) = os.listdir(path.parent)

    def refuse(*_):
        raise OSError(95, "not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    write_atomically(path, b"new")
    assert sorted(os.listdir(path.parent)) == sorted([left, path.name])


@pytest.mark.parametrize("letter", ["n", "é", "字"])
def test_names_of_the_greatest_length(tmp_path, letter):
    limit = os.pathconf(tmp_path, "PC_NAME_MAX")
    name = letter * (limit // len(letter.encode()))
    for data in (b"one", b"two"):
        write_atomically(tmp_path / name, data)
        assert (tmp_path / name).read_bytes() == data
    assert os.listdir(tmp_path) == [name]
