"""The package's names, with and without what they need. Each test runs in a process of its own."""

import subprocess
import sys

import pytest

WITHOUT_TORCH = 'import sys; sys.modules["torch"] = None\n'
WITHOUT_SAFETENSORS = 'import sys; sys.modules["safetensors"] = None\n'
NOT_BUILT = """if True:
    import sys
    from pathlib import Path
    glob = Path.glob
    Path.glob = lambda path, pattern: [] if "_ops" in pattern else glob(path, pattern)
"""


def run(script, *arguments):
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True
    )


def check(*scripts):
    process = run("".join(scripts))
    assert process.returncode == 0, process.stderr


def test_a_process_without_torch_can_look_around():
    check(
        WITHOUT_TORCH,
        """if True:
        import inspect, pydoc
        import lstm_fastkernels as lfk
        assert not hasattr(lfk, "FastQuantLSTM")
        assert getattr(lfk, "convert", 7) == 7
        assert not hasattr(lfk, "x")
        assert hasattr(lfk, "get_include")
        assert {"FastQuantLSTM", "get_include", "__version__"} <= set(dir(lfk))
        found = dict(inspect.getmembers(lfk))
        assert "get_include" in found and "FastQuantLSTM" not in found
        assert "get_include" in pydoc.plain(pydoc.render_doc(lfk))
        help(lfk)
        """,
    )


@pytest.mark.parametrize("form", ["lfk.{}", "getattr(lfk, '{}')"])
def test_what_is_missing_is_named_on_access(form):
    for name in ("FastQuantLSTM", "convert", "quantize_rows", "get_isa"):
        access = form.format(name)
        process = run(WITHOUT_TORCH + f"import lstm_fastkernels as lfk; {access}")
        assert process.stderr.splitlines()[-1] == (
            f"AttributeError: lstm_fastkernels.{name} needs PyTorch: "
            "pip install lstm_fastkernels[torch]"
        )


@pytest.mark.parametrize(
    "line", ["from lstm_fastkernels import FastQuantLSTM", "from lstm_fastkernels import *"]
)
def test_what_is_missing_is_named_on_import(line):
    for before in ("", "import lstm_fastkernels as lfk; hasattr(lfk, 'convert')\n"):
        check(
            WITHOUT_TORCH + before,
            f"""if True:
        try:
            exec({line!r})
        except ModuleNotFoundError as error:
            assert error.name == "torch"
            assert " needs PyTorch: pip install lstm_fastkernels[torch]" in str(error)
        else:
            raise SystemExit(1)
        """,
        )


def test_the_name_that_needs_safetensors():
    last = run(WITHOUT_SAFETENSORS + "from lstm_fastkernels import save_file").stderr.splitlines()
    assert last[-1] == (
        "ModuleNotFoundError: lstm_fastkernels.save_file needs safetensors: "
        "pip install lstm_fastkernels[torch]"
    )
    check(
        WITHOUT_SAFETENSORS,
        """if True:
        import lstm_fastkernels as lfk
        assert not hasattr(lfk, "save_file")
        assert hasattr(lfk, "FastQuantLSTM")
        """,
    )


def test_what_comes_later_is_found():
    """A notebook that installs torch need not start again."""
    check(
        WITHOUT_TORCH,
        """if True:
        import lstm_fastkernels as lfk
        assert not hasattr(lfk, "FastQuantLSTM")
        del sys.modules["torch"]
        from lstm_fastkernels import FastQuantLSTM
        assert lfk.FastQuantLSTM is FastQuantLSTM
        """,
    )


def test_names_that_there_are_not():
    process = run("from lstm_fastkernels import nothing")
    assert "ImportError: cannot import name 'nothing'" in process.stderr
    process = run(WITHOUT_TORCH + "from lstm_fastkernels import nothing")
    assert "ImportError: cannot import name 'nothing'" in process.stderr
    process = run("import lstm_fastkernels as lfk; lfk.nothing")
    assert "AttributeError: module 'lstm_fastkernels' has no attribute 'nothing'" in process.stderr
    process = run(WITHOUT_TORCH + "import lstm_fastkernels.nothing")
    assert "No module named 'lstm_fastkernels.nothing'" in process.stderr


def test_a_package_that_was_not_built():
    check(
        NOT_BUILT,
        """if True:
        import inspect
        import lstm_fastkernels as lfk
        assert not hasattr(lfk, "get_isa")
        inspect.getmembers(lfk)
        import torch
        import lstm_fastkernels.paths
        assert hasattr(lfk, "prune_")
        """,
    )
    last = run(NOT_BUILT + "from lstm_fastkernels import FastQuantLSTM").stderr.splitlines()[-1]
    assert last.startswith("ImportError: lstm_fastkernels was not built")


def test_a_fault_of_a_module_is_not_taken_for_a_missing_name():
    script = """if True:
        import lstm_fastkernels as lfk, sys
        sys.modules["lstm_fastkernels.compression.convert"] = object()
        lfk.convert
    """
    assert "object has no attribute 'convert'" in run(script).stderr
