"""`python -m lstm_fastkernels --cmakefiles`: what build scripts ask for."""

import argparse
import sys

from lstm_fastkernels import __version__, paths

ANSWERS = {
    "include": (paths.get_include, "folder of the C++ and C headers"),
    "libdir": (paths.get_library_dir, "folder of the static and shared libraries"),
    "cmakefiles": (paths.get_cmake_dir, "folder for find_package: -Dlstm_fastkernels_DIR=..."),
    "version": (lambda: __version__, "version of the package"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m lstm_fastkernels", description="Prints each asked-for value on a line."
    )
    for name, (_, text) in ANSWERS.items():
        parser.add_argument(f"--{name}", action="append_const", dest="asked", const=name, help=text)
    asked = parser.parse_args().asked
    if not asked:
        parser.print_help()
        return
    try:
        print(*(ANSWERS[name][0]() for name in asked), sep="\n")
    except FileNotFoundError as error:
        sys.exit(str(error))
