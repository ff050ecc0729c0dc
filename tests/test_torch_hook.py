"""Programs that hold the ops run after `import lstm_fastkernels`, before or after `import torch`,
with no name of the package used. Each test runs in a process of its own."""

import shutil
import subprocess
import sys

import pytest
import torch

from cases import Case

CASE = Case(9, 31, T=5, B=3)
PACKAGE, TORCH = "import lstm_fastkernels\n", "import torch\n"
ORDERS = pytest.mark.parametrize(
    "imports", [PACKAGE + TORCH, TORCH + PACKAGE], ids=["package first", "torch first"]
)


def check(script, *arguments):
    process = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    return process


def save_call(folder):
    torch.save((CASE.x(), CASE.fast()(CASE.x())[0]), folder / "call.pt")


RUN = """
import sys
x, expected = torch.load(sys.argv[2])
assert torch.equal(program(x)[0], expected)
"""


@ORDERS
def test_an_exported_program(imports, tmp_path):
    save_call(tmp_path)
    program = torch.export.export(CASE.fast(), (CASE.x(),))
    torch.export.save(program, tmp_path / "program.pt2")
    load = "import sys; program = torch.export.load(sys.argv[1]).module()\n"
    check(imports + load + RUN, tmp_path / "program.pt2", tmp_path / "call.pt")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="inductor needs a C++ compiler")
def test_an_aot_inductor_package(tmp_path):
    save_call(tmp_path)
    program = torch.export.export(CASE.fast(), (CASE.x(),))
    path = str(tmp_path / "program.pt2")
    quick = {
        "aot_inductor.compile_wrapper_opt_level": "O0",
        "aot_inductor.precompile_headers": False,
    }
    torch._inductor.aoti_compile_and_package(program, package_path=path, inductor_configs=quick)
    load = "import sys; program = torch._inductor.aoti_load_package(sys.argv[1])\n"
    for imports in (PACKAGE + TORCH, TORCH + PACKAGE):
        check(imports + load + RUN, path, tmp_path / "call.pt")


# A torch of our own, and ops that only say when they were loaded: importing the real ones takes
# seconds.
STAND_INS = """
import importlib, importlib.util, sys, warnings
from importlib.machinery import ModuleSpec
sys.path.insert(0, sys.argv[1])
breaks, loads = None, []
class Ops:
    def find_spec(self, name, path=None, target=None):
        if name == "lstm_fastkernels.ops":
            return ModuleSpec(name, self)
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        if breaks:
            raise breaks
        import torch
        loads.append(torch.whole)
sys.meta_path.insert(0, Ops())
before = list(sys.meta_path)
"""
WHOLE = "whole = False\nwhole = True\n"
LOADED = "assert loads == [True]\nassert sys.meta_path == before\n"


@pytest.fixture
def check_hook(tmp_path):
    (tmp_path / "torch.py").write_text(WHOLE)

    def check_hook(*scripts):
        process = check(STAND_INS + "".join(scripts), tmp_path)
        assert not process.stderr, process.stderr

    return check_hook


def test_the_package_alone_imports_no_torch():
    for name in ("lstm_fastkernels", "lstm_fastkernels.runtime", "lstm_fastkernels.cli"):
        check(f"import {name}, sys; assert 'torch' not in sys.modules")


def test_the_ops_are_loaded_once_and_the_hook_is_gone(check_hook):
    check_hook(PACKAGE, "assert not loads\n", TORCH, LOADED, TORCH, PACKAGE, LOADED)
    check_hook(TORCH, PACKAGE, LOADED)


def test_modules_that_are_reloaded(check_hook):
    again = "importlib.reload(lstm_fastkernels)\n"
    anew = "del sys.modules['lstm_fastkernels']\n"
    check_hook(PACKAGE, again, anew, PACKAGE, "assert len(sys.meta_path) == len(before) + 1\n")
    check_hook(PACKAGE, again, anew, PACKAGE, TORCH, LOADED)
    check_hook(PACKAGE, TORCH, again, "importlib.reload(torch)\n", LOADED)


def test_asking_whether_there_is_torch_changes_nothing(check_hook):
    ask = "assert importlib.util.find_spec('torch').origin and 'torch' not in sys.modules\n"
    check_hook(PACKAGE, ask, ask, TORCH, LOADED)


def test_a_failing_import_of_torch_can_be_tried_again(check_hook, tmp_path):
    fail = """if True:
        from pathlib import Path
        file = Path(sys.argv[1], "torch.py")
        whole = file.read_text()
        file.write_text("raise RuntimeError('broken')")
        for _ in range(2):
            try:
                import torch
            except RuntimeError as error:
                assert str(error) == "broken"
            else:
                raise SystemExit("it must fail")
        file.write_text(whole)
        importlib.invalidate_caches()
    """
    check_hook("sys.dont_write_bytecode = True\n", PACKAGE, fail + "\n", TORCH, LOADED)


def test_torch_that_comes_later(check_hook):
    fail = """if True:
        path = sys.path.pop(0)
        sys.modules.pop("torch", None)
        before_path, sys.path[:] = sys.path[:], []
        try:
            import torch
        except ModuleNotFoundError as error:
            assert error.name == "torch"
        sys.path[:] = [path, *before_path]
    """
    check_hook(PACKAGE, fail + "\n", TORCH, LOADED)
    blocked = 'sys.modules["torch"] = None\n'
    check_hook(blocked, PACKAGE, 'del sys.modules["torch"]\n', TORCH, LOADED)


# A hook as others have them: it asks all finders, itself kept out by a flag.
OTHER_HOOK = """
class Other:
    busy, seen = False, []
    def find_spec(self, name, path=None, target=None):
        if self.busy or name != "torch":
            return None
        self.busy = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self.busy = False
        loader, execute = spec.loader, spec.loader.exec_module
        def exec_module(module):
            execute(module)
            self.seen.append(module.__name__)
        loader.exec_module = exec_module
        return spec
other = Other()
sys.meta_path.insert(0, other)
"""


def test_other_hooks_go_on_working(check_hook):
    done = TORCH + "sys.meta_path.remove(other)\nassert Other.seen == ['torch']\n" + LOADED
    check_hook(OTHER_HOOK, PACKAGE, done)
    check_hook(PACKAGE, OTHER_HOOK, done)


def test_finders_and_loaders_of_an_old_kind_are_no_hindrance(check_hook):
    """A finder without find_spec; a loader whose methods cannot be replaced."""
    old = (
        "class Old:\n    def find_module(self, *_): return None\nsys.meta_path.insert({}, Old())\n"
    )
    check_hook(old.format(0), "before = list(sys.meta_path)\n", PACKAGE, TORCH, LOADED)
    check_hook(PACKAGE, old.format(1), TORCH, "assert loads == [True]\n")
    fixed = """if True:
        class Fixed:
            __slots__ = ()
            def find_spec(self, name, path=None, target=None):
                if name == "torch":
                    return ModuleSpec(name, self)
            def create_module(self, spec):
                return None
            def exec_module(self, module):
                module.whole = True
        sys.meta_path.append(Fixed())
        sys.path.pop(0)
        sys.path[:] = [path for path in sys.path if "site-packages" not in path]
        import torch
        assert torch.whole
        import lstm_fastkernels.paths
    """
    check_hook(PACKAGE, fixed)


def test_ops_that_cannot_be_loaded_do_not_break_torch(check_hook):
    load = """if True:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            import lstm_fastkernels
            import torch
        assert torch.whole
    """
    # Not built: what needs the ops says so.
    check_hook("breaks = ImportError('not built')\n", load, "    assert not caught\n")
    message = "the ops of lstm_fastkernels cannot be loaded: wrong version"
    check_hook(
        "breaks = OSError('wrong version')\n",
        load,
        f"    assert [str(warning.message) for warning in caught] == [{message!r}]\n",
    )


def test_threads_that_import_at_once():
    check(
        """if True:
        import importlib, threading
        failures = []
        def load(name):
            try:
                importlib.import_module(name)
            except BaseException as error:
                failures.append(error)
        names = ["torch", "lstm_fastkernels", "lstm_fastkernels.modules.lstm", "torch"] * 3
        threads = [threading.Thread(target=load, args=[name]) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures, failures
        import torch
        assert hasattr(torch.ops.lstm_fastkernels, "lstm")
    """
    )
