"""How the binaries of the package are built: hardened, and without a trace of where."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lstm_fastkernels as lfk

PACKAGE = Path(lfk.__file__).parent
SHARED = sorted(PACKAGE.rglob("*.so"))
BINARIES = [*SHARED, *sorted(PACKAGE.rglob("*.a"))]


def readelf(*arguments):
    return subprocess.run(
        ["readelf", *arguments], capture_output=True, text=True, check=True
    ).stdout


def test_there_are_all_of_them():
    names = {re.sub(r"\W.*", "", path.name) for path in SHARED}
    assert names >= {"_ops", "_runtime", "liblstm_fastkernels", "liblstm_fastkernels_file"}


@pytest.mark.parametrize("path", SHARED, ids=lambda path: path.name)
def test_shared_libraries_are_hardened(path):
    segments, dynamic = readelf("-lW", path), readelf("-dW", path)
    assert "GNU_RELRO" in segments
    assert re.search(r"\((BIND_NOW|FLAGS)\).*NOW|FLAGS_1\).*NOW", dynamic)
    assert re.search(r"GNU_STACK .* RW ", segments), "a stack is no code"
    assert not re.search(r"LOAD .* RWE ", segments)
    assert "TEXTREL" not in dynamic
    assert "__stack_chk_fail" in readelf("--dyn-syms", "-W", path)


def test_calls_of_the_c_library_are_checked():
    symbols = "".join(readelf("--dyn-syms", "-W", path) for path in SHARED)
    assert set(re.findall(r"__\w+_chk\b", symbols)), "_FORTIFY_SOURCE"


@pytest.mark.parametrize("path", BINARIES, ids=lambda path: path.name)
def test_binaries_do_not_say_where_they_were_built(path):
    contents = path.read_bytes()
    source, torch_folder = PACKAGE.parent, Path(torch.__file__).parents[1]
    for folder in (source, torch_folder, Path(sys.prefix), Path.home()):
        at = contents.find(f"{folder}/".encode())
        assert at < 0, contents[at : at + 200]


def test_kernels_have_no_stack_protector():
    """Nothing that a caller gives is copied to their stacks, and each step would pay for it."""
    archive = Path(lfk.get_library_dir(), "liblstm_fastkernels.a")
    symbols = readelf("-sW", archive)
    members = dict(re.findall(r"File: \S+\((\S+)\)\n(.*?)(?=\nFile: |\Z)", symbols, re.DOTALL))
    with_protector = {name for name, table in members.items() if "__stack_chk_fail" in table}
    names = ("scalar", "avx2", "avx512vnni", "amx", "neon", "neon_dotprod")
    kernels = {f"{name}.cpp.o" for name in names} & members.keys()
    assert kernels
    assert not kernels & with_protector
    assert with_protector, "others have it"
