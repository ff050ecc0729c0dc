"""Where the C++ library lies: for CMake, compilers and ctypes. Needs no torch and no NumPy."""

from pathlib import Path

HOW_TO_BUILD = "Run: pip install --no-build-isolation -e ."

_PACKAGE = Path(__file__).parent


def get_include() -> str:
    """The folder of the headers: `#include <lstm_fastkernels/model.h>`, `<lstm_fastkernels.h>`.

    Raises FileNotFoundError if the library was not built, as do the other two.
    """
    return _built("include")


def get_library_dir() -> str:
    """The folder of liblstm_fastkernels and liblstm_fastkernels_file, each as .a and .so."""
    return _built("lib")


def get_cmake_dir() -> str:
    """The folder that find_package takes: `cmake -Dlstm_fastkernels_DIR=...`."""
    return _built("lib/cmake/lstm_fastkernels")


def _built(folder: str) -> str:
    path = _PACKAGE / folder
    if not path.is_dir():
        raise FileNotFoundError(
            f"lstm_fastkernels was not built: {path} is missing. {HOW_TO_BUILD}"
        )
    return str(path)
