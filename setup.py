"""Builds three products from one core.

The C++ library comes first, by CMake; it is installed into the package, where C++ programs find it.
The torch ops (on torch's stable ABI) and the NumPy runtime link its static form. The short way of
eager calls sees torch's tensors from within, and so runs with the torch alone that it is built for.
CUDA kernels are in the package once, in a shared library that the ops link.

From the environment:
  USE_CUDA               1 or 0: with or without CUDA kernels; by default, with if nvcc is there
  CUDA_ARCHS             what CMake takes as CUDA_ARCHITECTURES, separated by spaces: "80 90"
  LSTM_FASTKERNELS_CUDA_STATIC  1: the package gets the CUDA kernels as a static library, too
  LSTM_FASTKERNELS_FILE  0: without the file library and the NumPy runtime, which need nlohmann-json
"""

import glob
import importlib.util
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pybind11
import torch
from setuptools import Extension, setup
from torch.utils.cpp_extension import BuildExtension, CppExtension

ROOT = Path(__file__).parent.resolve()
WITH_FILE = os.environ.get("LSTM_FASTKERNELS_FILE") != "0"
TORCH_2_10 = "0x020a000000000000"
# The extensions are hardened as csrc/CMakeLists.txt hardens the library, and name no folder of the
# machine that builds them.
FOLDERS = [ROOT, *{Path(package.__path__[0]).parent for package in (torch, pybind11)}]
COMPILE = [
    *("-O3", "-g0", "-fvisibility=hidden", "-Wall"),
    *("-fstack-protector-strong", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"),
    *(f"-ffile-prefix-map={folder}/=" for folder in FOLDERS),
]
# Also so that another torch's extensions are built anew.
BUILT_FOR_TORCH = ("BUILT_FOR_TORCH", f'"{torch.__version__}"')
CPP17 = "-std=c++17"  # where torch does not add what its own headers ask for
LINK = ["-pthread", "-Wl,--exclude-libs,ALL", "-Wl,-z,relro,-z,now"]
os.chdir(ROOT)
HEADERS = glob.glob("csrc/**/*.h", recursive=True)


def tool(name: str) -> str:
    """A build tool, from beside this Python or from the PATH."""
    beside = Path(sysconfig.get_path("scripts"), name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if not found:
        raise RuntimeError(f"{name} is missing: pip install {name}")
    return found


def json_headers() -> list[str]:
    """Where the nlohmann-json package has its headers; without it, CMake searches the system."""
    package = importlib.util.find_spec("nlohmann_json")
    if not package or not package.origin:
        return []
    return [f"-DNLOHMANN_JSON_INCLUDE_DIR={Path(package.origin).parent / 'include'}"]


def choices() -> list[str]:
    """What the environment says, as options of CMake."""
    options = json_headers() if WITH_FILE else ["-DLSTM_FASTKERNELS_FILE=OFF"]
    if use_cuda := os.environ.get("USE_CUDA"):
        options.append(f"-DLSTM_FASTKERNELS_CUDA={use_cuda}")
    if architectures := os.environ.get("CUDA_ARCHS"):
        options.append(f"-DCMAKE_CUDA_ARCHITECTURES={';'.join(architectures.split())}")
    static = os.environ.get("LSTM_FASTKERNELS_CUDA_STATIC", "0")
    return [*options, f"-DLSTM_FASTKERNELS_CUDA_STATIC={static}"]


def build_library(build: Path, prefix: Path) -> list[str]:
    """Builds the C++ library and installs it below `prefix`; returns what extensions link."""
    options = [
        *("-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}"),
        *(f"-DCMAKE_INSTALL_PREFIX={prefix}", "-DCMAKE_INSTALL_LIBDIR=lib"),
        *("-DCMAKE_BUILD_TYPE=Release", "-DBUILD_TESTING=OFF"),
        "-DCMAKE_PLATFORM_NO_VERSIONED_SONAME=ON",  # a wheel has no symbolic links
    ]
    cmake, cache = tool("cmake"), build / "CMakeCache.txt"
    cache.unlink(missing_ok=True)  # choices that were made before
    command = [cmake, "-S", "csrc", "-B", build, *options, *choices()]
    subprocess.run(command, check=True)
    subprocess.run([cmake, "--build", build], check=True)
    for folder in ("include", "lib"):
        shutil.rmtree(prefix / folder, ignore_errors=True)
    subprocess.run([cmake, "--install", build], check=True)
    libraries = [prefix / f"lib/liblstm_fastkernels{part}.a" for part in ("_file", "")]
    return [str(library) for library in libraries if library.exists()]


class Build(BuildExtension):
    """Builds the library, then the extensions that link it."""

    def run(self) -> None:
        root = ROOT if self.inplace else Path(self.build_lib).resolve()
        package = root / "lstm_fastkernels"
        libraries = build_library(Path(self.build_temp, "cpp"), package)
        for extension in self.extensions:
            extension.extra_objects = libraries
            extension.depends = [*extension.depends, *libraries]
        cuda = package / "lib/liblstm_fastkernels_cuda.so"
        if cuda.exists():
            ops.extra_objects = [*libraries, str(cuda)]
            ops.depends = [*ops.depends, str(cuda)]
            ops.define_macros.append(("LSTM_FASTKERNELS_CUDA", None))
            ops.libraries.append("dl")
            ops.runtime_library_dirs.append("$ORIGIN/lib")
        super().run()


ops = CppExtension(
    "lstm_fastkernels._ops",
    sorted(glob.glob("csrc/bindings/torch/*.cpp")),
    include_dirs=[str(ROOT / "csrc"), str(ROOT / "csrc/include")],
    depends=HEADERS,
    define_macros=[("TORCH_TARGET_VERSION", TORCH_2_10), BUILT_FOR_TORCH],
    extra_compile_args=[CPP17, *COMPILE],
    extra_link_args=LINK,
    py_limited_api=True,
)
runtime = Extension(
    "lstm_fastkernels._runtime",
    ["csrc/bindings/python/runtime.cpp"],
    include_dirs=[str(ROOT / "csrc"), str(ROOT / "csrc/include"), pybind11.get_include()],
    depends=HEADERS,
    extra_compile_args=[CPP17, *COMPILE],
    extra_link_args=LINK,
    language="c++",
)
eager = CppExtension(
    "lstm_fastkernels._eager",
    sorted(glob.glob("csrc/bindings/eager/*.cpp")),
    include_dirs=[str(ROOT / "csrc"), str(ROOT / "csrc/include")],
    depends=HEADERS,
    define_macros=[BUILT_FOR_TORCH],
    extra_compile_args=COMPILE,
    extra_link_args=LINK,
)

setup(
    ext_modules=[ops, eager, runtime] if WITH_FILE else [ops, eager], cmdclass={"build_ext": Build}
)
