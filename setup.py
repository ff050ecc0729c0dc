"""Builds the torch ops, the core and its binding in one library on torch's stable ABI."""

import glob
from pathlib import Path

from setuptools import setup
from torch.utils.cpp_extension import BuildExtension, CppExtension

ROOT = Path(__file__).parent.resolve()
TORCH_2_10 = "0x020a000000000000"

ops = CppExtension(
    "lstm_fastkernels._ops",
    sorted(glob.glob("csrc/core/*.cpp") + glob.glob("csrc/torch/*.cpp")),
    include_dirs=[str(ROOT / "csrc/include"), str(ROOT / "csrc/core")],
    depends=sorted(
        glob.glob("csrc/**/*.h", recursive=True) + glob.glob("csrc/**/*.inl", recursive=True)
    ),
    define_macros=[("TORCH_TARGET_VERSION", TORCH_2_10)],
    extra_compile_args=["-std=c++17", "-O3", "-ffp-contract=off", "-fvisibility=hidden", "-Wall"],
    extra_link_args=["-pthread", "-Wl,--exclude-libs,ALL"],
    py_limited_api=True,
)

setup(
    ext_modules=[ops],
    cmdclass={"build_ext": BuildExtension},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
