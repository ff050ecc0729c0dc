"""No CUDA kernel spills, has a stack frame or takes more registers than its cap."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import lstm_fastkernels as lfk

SCRIPT = Path(__file__).parents[2] / "csrc/cmake/check_resources.py"
check = runpy.run_path(str(SCRIPT))
REPORT = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z4stepPf' for 'sm_80'
ptxas info    : Function properties for _Z4stepPf
    {} bytes stack frame, {} bytes spill stores, {} bytes spill loads
ptxas info    : Used {} registers, used 0 barriers, 372 bytes cmem[0]
"""


def faults(*numbers, caps):
    (kernel,) = check["kernels"](REPORT.format(*numbers))
    assert (kernel.name, kernel.architecture) == ("_Z4stepPf", "sm_80")
    return check["faults"](kernel, caps)


def test_reports_are_understood():
    assert faults(0, 0, 0, 40, caps={"other": 1, "step": 40}) == []
    (fault,) = faults(0, 0, 0, 41, caps={"step": 40})
    assert fault == "_Z4stepPf (sm_80) takes 41 registers, 40 at most"
    (fault,) = faults(0, 0, 0, 41, caps={})
    assert "no cap" in fault
    (fault,) = faults(8, 0, 0, 40, caps={"step": 40})
    assert "stack frame of 8 bytes" in fault
    assert len(faults(8, 4, 4, 41, caps={"step": 40})) == 3


def run(folder):
    return subprocess.run([sys.executable, SCRIPT, folder], capture_output=True, text=True)


@pytest.mark.parametrize(("registers", "status"), [(1, 0), (256, 1)])
def test_the_exit_status(registers, status, tmp_path):
    report = REPORT.replace("step", next(iter(check["CAPS"])))
    (tmp_path / "step.cu.o.ptxas").write_text(report.format(0, 0, 0, registers))
    assert run(tmp_path).returncode == status


def test_a_folder_without_reports_fails(tmp_path):
    checked = run(tmp_path)
    assert checked.returncode == 1
    assert "no report" in checked.stderr


def test_kernels_stay_in_registers():
    reports = Path(lfk.get_library_dir()) / "ptxas"
    if not reports.exists():
        pytest.skip("built without CUDA")
    checked = run(reports)
    assert checked.returncode == 0, checked.stderr
