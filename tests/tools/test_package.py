"""What the package holds beside its modules: the C++ library, where it is found, what the README
and docs/cpp.md say of it."""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import c_interface
import lstm_fastkernels as lfk
from cases import Case
from lstm_fastkernels.runtime import LSTM

ROOT = Path(__file__).parents[2]
PATHS = {
    "--include": lfk.get_include,
    "--libdir": lfk.get_library_dir,
    "--cmakefiles": lfk.get_cmake_dir,
}
SHARED = sorted(Path(lfk.get_library_dir()).glob("*.so"))
WITH_CUDA = Path(lfk.get_library_dir(), "liblstm_fastkernels_cuda.so").exists()
needs_cuda = pytest.mark.skipif(not WITH_CUDA, reason="built without CUDA")
TOOLS = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))


def output(*command, **options):
    process = subprocess.run(command, capture_output=True, text=True, **options)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def test_the_version_is_the_same_everywhere():
    with open(ROOT / "pyproject.toml", "rb") as file:
        assert tomllib.load(file)["project"]["version"] == lfk.__version__
    cmake = (ROOT / "csrc/CMakeLists.txt").read_text()
    assert f"project(lstm_fastkernels VERSION {lfk.__version__} " in cmake
    assert c_interface.call("version").decode() == lfk.__version__


# Licences


MAKE_METADATA = """
import sys
from setuptools import build_meta
build_meta.prepare_metadata_for_build_wheel(sys.argv[1])
"""


def test_the_wheel_holds_all_licences(tmp_path):
    output(sys.executable, "-c", MAKE_METADATA, tmp_path, cwd=ROOT)
    (held,) = tmp_path.glob("*.dist-info/licenses")
    files = {ROOT / "LICENSE", *(ROOT / "licenses").iterdir()}
    names = {file.relative_to(ROOT) for file in files}
    assert {file.relative_to(held) for file in held.rglob("*") if file.is_file()} == names
    for name in names:
        assert (held / name).read_bytes() == (ROOT / name).read_bytes()


NOTICES = (ROOT / "licenses/THIRD_PARTY_NOTICES.txt").read_text()
# What the package is built with, but holds nothing of.
BUILD_TOOLS = {"setuptools", "cmake", "ninja"}


def test_all_that_is_compiled_in_is_noticed():
    with open(ROOT / "pyproject.toml", "rb") as file:
        requirements = tomllib.load(file)["build-system"]["requires"]
    names = {re.match(r"[\w-]+", requirement)[0] for requirement in requirements} - BUILD_TOOLS
    for name in names:
        package = importlib.metadata.distribution(name)
        licence = package.read_text("licenses/LICENSE")
        version = package.version.partition("+")[0]
        title = {"torch": "PyTorch"}.get(name, name)
        assert f"\n{title} {version}, http" in NOTICES
        assert licence.rstrip("\n") in NOTICES, f"{name}: the licence has changed"


def test_the_notices_name_all_holders_of_the_json_headers():
    headers = Path(importlib.util.find_spec("nlohmann_json").origin).parent / "include"
    for path in headers.rglob("*.hpp"):
        for holder in re.findall(r"SPDX-FileCopyrightText: (.*)", path.read_text()):
            assert f"Copyright (c) {holder}\n" in NOTICES


# Paths


def test_paths_hold_what_they_should():
    include, libraries, cmake = (Path(get()) for get in PATHS.values())
    sources = ROOT / "csrc/include"
    headers = {path.relative_to(sources) for path in sources.rglob("*.h")}
    assert {path.relative_to(include) for path in include.rglob("*.h")} == headers
    names = {path.name for path in libraries.glob("lib*")}
    ends = (".a", ".so", "_file.a", "_file.so")
    expected = {f"liblstm_fastkernels{end}" for end in ends}
    if WITH_CUDA:
        expected.add("liblstm_fastkernels_cuda.so")
    assert names == expected
    assert (cmake / "lstm_fastkernels-config.cmake").is_file()


def python(*arguments, **options):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, **options)


def test_the_command_prints_what_is_asked_for():
    module = "-m", "lstm_fastkernels"
    for option, get in PATHS.items():
        assert python(*module, option).stdout == f"{get()}\n"
    assert python(*module, "--version", "--libdir").stdout.split() == [
        lfk.__version__,
        lfk.get_library_dir(),
    ]
    assert "--cmakefiles" in python(*module).stdout
    assert python(*module, "--nothing").returncode == 2


def test_the_command_needs_neither_torch_nor_numpy():
    script = """if True:
        import runpy, sys
        sys.modules["torch"] = sys.modules["numpy"] = None
        sys.argv[1:] = ["--include"]
        runpy.run_module("lstm_fastkernels", run_name="__main__")
    """
    assert python("-c", script).stdout == f"{lfk.get_include()}\n"


@pytest.fixture
def unbuilt(tmp_path):
    """The package without what is compiled; a runtime for another Python is there. To be run with
    -S: an editable install would find what is missing elsewhere."""
    package = tmp_path / "lstm_fastkernels"
    built = shutil.ignore_patterns("*.so", "include", "lib", "__pycache__")
    shutil.copytree(ROOT / "lstm_fastkernels", package, ignore=built)
    (package / "_runtime.cpython-39-x86_64-linux-gnu.so").touch()
    return {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(tmp_path)}}


def test_what_was_not_built_is_named(unbuilt):
    process = python("-S", "-m", "lstm_fastkernels", "--libdir", **unbuilt)
    assert process.returncode == 1
    assert process.stderr.startswith("lstm_fastkernels was not built: ")
    assert "pip install" in process.stderr
    process = python("-S", "-c", "import lstm_fastkernels.runtime", **unbuilt)
    last = process.stderr.splitlines()[-1]
    assert last.startswith("ImportError: lstm_fastkernels was not built for this Python")
    assert sys.implementation.cache_tag in last
    assert "_runtime.cpython-39-x86_64-linux-gnu.so" in last
    assert "pip install" in last


# The shared libraries


@pytest.fixture(params=SHARED, ids=lambda path: path.name)
def shared(request):
    return request.param


def test_shared_libraries_need_only_the_system(shared):
    dynamic = output("readelf", "-d", shared)
    needed = re.findall(r"NEEDED.*\[(.*)\.so", dynamic)
    system = {"libstdc++", "libm", "libgcc_s", "libc", "libpthread", "ld-linux-x86-64"}
    if "cuda" in shared.name:
        system |= {"libdl", "librt"}
    assert set(needed) <= system | {"liblstm_fastkernels"}
    assert re.findall(r"RUNPATH.*\[(.*)\]", dynamic) in ([], ["$ORIGIN"])


def test_shared_libraries_show_only_their_interface(shared):
    symbols = output("nm", "-DC", "--defined-only", shared).splitlines()
    names = [line.split(" ", 2)[2] for line in symbols]
    assert names
    described = r"((typeinfo|typeinfo name|vtable) for )?lstm_fastkernels::"
    others = [name for name in names if not re.match(rf"lfk_|{described}", name)]
    assert not others


def test_shared_libraries_show_the_whole_c_interface():
    header = (ROOT / "csrc/include/lstm_fastkernels.h").read_text()
    declared = set(re.findall(r"LFK_API [^;(]*?(lfk_\w+)\(", header))
    assert declared == {f"lfk_{name}" for name in c_interface.FUNCTIONS}
    shown = output("nm", "-D", "--defined-only", *SHARED)
    assert set(re.findall(r"\blfk_\w+", shown)) == declared


def test_cuda_kernels_are_packaged_once():
    package = Path(lfk.__file__).parent
    compiled = [path for end in ("so", "a", "o") for path in package.rglob(f"*.{end}")]
    with_kernels = [path for path in compiled if ".nv_fatbin" in output("readelf", "-SW", path)]
    assert [path.name for path in with_kernels] == ["liblstm_fastkernels_cuda.so"] * WITH_CUDA


@needs_cuda
def test_the_ops_find_their_cuda_kernels_beside_them():
    (ops,) = Path(lfk.__file__).parent.glob("_ops*.so")
    dynamic = output("readelf", "-d", ops)
    assert re.findall(r"NEEDED.*\[(liblstm_fastkernels.*)\]", dynamic) == [
        "liblstm_fastkernels_cuda.so"
    ]
    assert re.findall(r"R(?:UN)?PATH.*\[(.*)\]", dynamic) == ["$ORIGIN/lib"]


def test_shared_libraries_are_small(tmp_path):
    sizes = []
    for library in (path for path in SHARED if "cuda" not in path.name):
        output("strip", library, "-o", tmp_path / library.name)
        sizes.append((tmp_path / library.name).stat().st_size)
    assert sum(sizes) < 1_000_000, sizes


# What the documents say


GUIDE = (ROOT / "docs/cpp.md").read_text()


def readme_part(heading):
    return (ROOT / "README.md").read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def blocks(document, language):
    """The code blocks of a document or a part of one."""
    return re.findall(rf"```{language}\n(.*?)```", document, re.DOTALL)


@pytest.fixture
def lstm(path):
    """The runtime's, of the file that the examples read in their folder."""
    path = path.with_name("lstm.safetensors")
    lfk.save_file(Case(7, 9).fast(), path)
    return LSTM.load(path)


def is_output_of_readme(printed, lstm):
    """The example streams what std::mt19937 gives; NumPy's has the same numbers."""
    random = np.random.RandomState(5489).randint(0, 2**32, (100, 7), dtype=np.uint32)
    x, state = random.astype(np.float32) * np.float32(2**-31) - 1, lstm.state()
    expected = np.array([lstm.step(row, state)[0] for row in x])
    actual = np.array(printed.split(), np.float32)
    return np.isfinite(actual).all() and np.array_equal(actual, expected)


@pytest.mark.parametrize("kind", ["static", "shared"])
def test_readme_from_an_empty_folder(kind, lstm, tmp_path):
    cmake = shutil.which("cmake", path=TOOLS)
    if not cmake:
        pytest.skip("cmake is missing")
    part = readme_part("In C++")
    (lists,), (program,) = blocks(part, "cmake"), blocks(part, "cpp")
    lists, found = re.subn("REQUIRED", f"REQUIRED COMPONENTS {kind}", lists)
    assert found == 1
    (tmp_path / "CMakeLists.txt").write_text(lists)
    (tmp_path / "stream.cpp").write_text(program)
    where = f"-Dlstm_fastkernels_DIR={lfk.get_cmake_dir()}"
    output(cmake, "-B", "build", where, cwd=tmp_path)
    output(cmake, "--build", "build", cwd=tmp_path)
    assert is_output_of_readme(output("build/stream", cwd=tmp_path), lstm)
    linked = "liblstm_fastkernels" in output("readelf", "-d", "build/stream", cwd=tmp_path)
    assert linked == (kind == "shared")


CUDA_LISTS = """
cmake_minimum_required(VERSION 3.18)
project(cuda CXX)
find_package(lstm_fastkernels REQUIRED COMPONENTS cuda)
add_executable(cuda cuda.cpp)
target_link_libraries(cuda PRIVATE lstm_fastkernels::cuda)
"""
CUDA_PROGRAM = """
#include <cstdio>
#include <lstm_fastkernels/cuda.h>
int main() {
  lstm_fastkernels::LstmShape shape;
  try {
    lstm_fastkernels::cuda::header_bytes(shape);
  } catch (const lstm_fastkernels::Error &error) {
    shape.input_size = shape.hidden_size = 3;
    std::printf("%zu", lstm_fastkernels::cuda::header_bytes(shape));
  }
}
"""


@needs_cuda
def test_cpp_programs_link_cuda(tmp_path):
    cmake = shutil.which("cmake", path=TOOLS)
    if not cmake:
        pytest.skip("cmake is missing")
    (tmp_path / "CMakeLists.txt").write_text(CUDA_LISTS)
    (tmp_path / "cuda.cpp").write_text(CUDA_PROGRAM)
    where = f"-Dlstm_fastkernels_DIR={lfk.get_cmake_dir()}"
    output(cmake, "-B", "build", where, cwd=tmp_path)
    output(cmake, "--build", "build", cwd=tmp_path)
    assert output("build/cuda", cwd=tmp_path) == "320"
    static = CUDA_LISTS.replace("COMPONENTS cuda", "COMPONENTS static cuda")
    (tmp_path / "CMakeLists.txt").write_text(static)
    refused = subprocess.run(
        [cmake, "-B", "static", where], cwd=tmp_path, capture_output=True, text=True
    )
    assert refused.returncode != 0
    assert "cuda has no static library here" in " ".join(refused.stderr.split())


def compile_and_run(compiler, source, folder):
    libraries = lfk.get_library_dir()
    options = f"-Wall -Werror -I{lfk.get_include()} -L{libraries} -Wl,-rpath,{libraries}"
    links = "-llstm_fastkernels_file", "-llstm_fastkernels", "-pthread"
    output(*compiler, source, *options.split(" "), *links, "-o", "program", cwd=folder)
    return output("./program", cwd=folder)


def test_cpp_of_the_guide(lstm, tmp_path):
    head, *body = blocks(GUIDE, "cpp")
    source = head + "int main() {\n" + "".join(body) + "}\n"
    (tmp_path / "guide.cpp").write_text(source)
    printed = compile_and_run(["g++", "-std=c++17"], "guide.cpp", tmp_path)
    assert "LSTM ''" in printed
    assert "no LSTM 'encoder'" in printed


def test_c_of_the_guide(lstm, tmp_path):
    (program,) = blocks(GUIDE, "c")
    (tmp_path / "guide.c").write_text(program)
    printed = compile_and_run(["gcc", "-std=c99"], "guide.c", tmp_path)
    expected = lstm.step(np.zeros(7, np.float32), lstm.state())
    assert np.float32(printed) == expected[0]


def test_python_of_the_documents(lstm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = np.ones((20, 4, 7), np.float32)
    (source,) = blocks(GUIDE, "python")
    exec(source, {"x": x})
    (source,) = blocks(readme_part("In NumPy"), "python")
    exec(source, {"x": x})
