"""Builds three products from one core.

The C++ library comes first, by CMake; it is installed into the package, where C++ programs find it.
The torch ops (on torch's stable ABI) and the NumPy runtime link its static form.
"""

import glob
import importlib.util
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pybind11
from setuptools import Extension, setup
from torch.utils.cpp_extension import BuildExtension, CppExtension

ROOT = Path(__file__).parent.resolve()
TORCH_2_10 = "0x020a000000000000"
COMPILE = ["-std=c++17", "-O3", "-g0", "-fvisibility=hidden", "-Wall"]
LINK = ["-pthread", "-Wl,--exclude-libs,ALL"]
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


def build_library(build: Path, prefix: Path) -> list[str]:
    """Builds the C++ library and installs it below `prefix`; returns the static libraries."""
    options = [
        *("-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}"),
        *(f"-DCMAKE_INSTALL_PREFIX={prefix}", "-DCMAKE_INSTALL_LIBDIR=lib"),
        *("-DCMAKE_BUILD_TYPE=Release", "-DBUILD_TESTING=OFF"),
        "-DCMAKE_PLATFORM_NO_VERSIONED_SONAME=ON",  # a wheel has no symbolic links
    ]
    cmake = tool("cmake")
    subprocess.run([cmake, "-S", "csrc", "-B", build, *options, *json_headers()], check=True)
    subprocess.run([cmake, "--build", build], check=True)
    subprocess.run([cmake, "--install", build], check=True)
    libraries = ["liblstm_fastkernels_file.a", "liblstm_fastkernels.a"]
    return [str(prefix / "lib" / library) for library in libraries]


class Build(BuildExtension):
    """Builds the library, then the extensions that link it."""

    def run(self) -> None:
        package = ROOT if self.inplace else Path(self.build_lib).resolve()
        libraries = build_library(Path(self.build_temp, "cpp"), package / "lstm_fastkernels")
        for extension in self.extensions:
            extension.extra_objects = libraries
            extension.depends = [*extension.depends, *libraries]
        super().run()


ops = CppExtension(
    "lstm_fastkernels._ops",
    [f"csrc/torch/{name}.cpp" for name in ("cuda_kernels", "lstm", "ops", "pack", "tensors")],
    include_dirs=[str(ROOT / "csrc/include")],
    depends=HEADERS,
    define_macros=[("TORCH_TARGET_VERSION", TORCH_2_10)],
    extra_compile_args=COMPILE,
    extra_link_args=LINK,
    py_limited_api=True,
)
runtime = Extension(
    "lstm_fastkernels._runtime",
    ["csrc/python/runtime.cpp"],
    include_dirs=[str(ROOT / "csrc/include"), pybind11.get_include()],
    depends=HEADERS,
    extra_compile_args=COMPILE,
    extra_link_args=LINK,
    language="c++",
)

os.chdir(ROOT)
setup(ext_modules=[ops, runtime], cmdclass={"build_ext": Build})
