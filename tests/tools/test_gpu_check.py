"""benchmarks/gpu_check.py, as far as it goes without a device."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import gpu
import gpu_check
import gpu_programs
import gpu_smoke
import lstm_fastkernels as lfk
import stage_runner
from gpu_stages import CALL_SECONDS, LOADING_SECONDS, WITHOUT_PERSISTENT, stages
from stage_runner import Stage

SMOKE = ["smoke: plain", "smoke: grid", "smoke: cluster"]
ORDER = {
    1: [
        *("device", *SMOKE, "device tests", "against cuDNN", "steps", "latencies"),
        *("first tests", "memcheck"),
    ],
    2: [*SMOKE, "without persistent", "other jobs", "other tests", "racecheck", "profile"],
}
BEFORE_KILL = (
    "print('{\"pid\": %d}' % os.getpid(), flush=True); print('half a li', end='', flush=True)"
)


def fake(name, code, seconds=60, **options):
    return Stage(name, seconds, [sys.executable, "-c", f"import os, sys, time; {code}"], **options)


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def run(tmp_path):
    """Runs stages; returns whether all went well, and the lines of the JSON Lines file."""

    def run(stages, seconds=600):
        path = tmp_path / "answers.jsonl"
        answers = stage_runner.Answers(path)
        return stage_runner.run_stages(stages, seconds, answers, tmp_path / "log"), lines_of(path)

    return run


def ends(lines):
    return {line["stage"]: line for line in lines if "status" in line}


# The runner


def test_no_stage_keeps_the_later_ones_from_running(run, capfd):
    well, lines = run(
        [
            fake("fails", "print('why'); sys.exit(3)"),
            Stage("missing", 60, ["no-such-program-here"]),
            fake("sleeps", "print('name', flush=True); time.sleep(60)", seconds=1),
            fake("crashes", "os.abort()"),
            fake("works", "print('fine')"),
        ]
    )
    assert not well
    found = ends(lines)
    assert [line["status"] for line in found.values()] == [3, 127, 124, -signal.SIGABRT, 0]
    assert found["sleeps"]["seconds"] < 30
    assert found["sleeps"]["tail"] == ["name"]
    assert found["fails"]["tail"] == ["why"]
    printed = capfd.readouterr().out
    assert "no-such-program-here" in printed
    *_, last = printed.splitlines()
    assert last.split() == ["works", last.split()[1], "s", "passed", "fine"]


def test_answers_are_the_lines_of_json(run, capfd):
    well, lines = run(
        [fake("asks", "print('{\"us\": 1.5}'); print('{no json'); print('[1]')", headline=True)]
    )
    assert well
    assert [line["answer"] for line in lines if "answer" in line] == [{"us": 1.5}]
    printed = capfd.readouterr().out.splitlines()
    assert printed.count('{"us": 1.5}') == 2, "when it comes, and at the end"


def test_a_failure_changes_the_environment_of_later_stages_only(run):
    show = "print('{\"A\": \"%s\"}' % os.environ.get('A', ''))"
    _, lines = run(
        [
            fake("own", show, environment={"A": "own"}),
            fake("well", show, if_it_fails={"A": "never"}),
            fake("badly", f"{show}; sys.exit(1)", if_it_fails={"A": "fallback"}),
            fake("later", show),
        ]
    )
    answers = {line["stage"]: line["answer"]["A"] for line in lines if "answer" in line}
    assert answers == {"own": "own", "well": "", "badly": "", "later": "fallback"}


def test_what_a_stage_started_ends_with_it(run):
    sleep = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
    code = f"import subprocess; child = {sleep}; print('{{\"pid\": %d}}' % child.pid, flush=True)"
    for after in ("", "; time.sleep(60)"):  # the stage ends by itself, or is ended
        _, lines = run([fake("parent", code + after, seconds=1.5)])
        (pid,) = [line["answer"]["pid"] for line in lines if "answer" in line]
        assert has_ended(pid)


def has_ended(pid):
    """Waits for it; a zombie that nobody has waited for has ended, too."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_no_stage_begins_after_the_end(run):
    well, lines = run([fake("first", "time.sleep(60)"), fake("late", "print('{}')")], seconds=0.5)
    assert not well
    assert {name: line["status"] for name, line in ends(lines).items()} == {
        "first": 124,
        "late": 124,
    }
    assert not any("answer" in line for line in lines)


def start_runner(tmp_path, code):
    """A process that runs two stages, as soon as the second is under way; and the answers' file."""
    path, log = tmp_path / "answers.jsonl", tmp_path / "log"
    program = f"""
import sys
from pathlib import Path
from stage_runner import *
exit_on_sigterm()
python = [sys.executable, "-c"]
stages = [
    Stage("first", 60, [*python, "print('{{\\"us\\": 1.5}}')"]),
    Stage("second", 60, [*python, {code!r}]),
]
run_stages(stages, 600, Answers(Path({str(path)!r})), Path({str(log)!r}))
"""
    environment = os.environ | {"PYTHONPATH": str(Path(stage_runner.__file__).parent)}
    runner = subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not (path.exists() and '"pid"' in path.read_text() and "half" in log.read_text()):
        assert runner.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return runner, path, log


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_a_runner_that_is_killed_loses_no_answer(tmp_path, by):
    code = f"import os, time; {BEFORE_KILL}; time.sleep(60)"
    runner, path, log = start_runner(tmp_path, code)
    runner.send_signal(by)
    assert runner.wait(60) != 0
    lines = lines_of(path)
    pid = lines[-1]["answer"]["pid"]
    assert [line["answer"] for line in lines if "answer" in line] == [{"us": 1.5}, {"pid": pid}]
    assert ends(lines)["first"]["verdict"] == "passed"
    assert log.read_text().endswith("half a li")
    if by == signal.SIGKILL:
        os.killpg(pid, signal.SIGKILL)  # what a runner does that can
    assert has_ended(pid)


# The stages


@pytest.mark.parametrize("call", ORDER)
def test_stages_fit_into_their_call(call):
    todo = stages(call, (), "90")
    assert [stage.name for stage in todo] == ORDER[call]
    assert sum(stage.seconds for stage in todo) + LOADING_SECONDS <= CALL_SECONDS[call]
    assert CALL_SECONDS == {1: 330, 2: 300}


@pytest.mark.parametrize("call", ORDER)
def test_programs_are_built_before_they_are_needed(call):
    todo = stages(call, gpu_programs.PROGRAMS, "80")
    assert [stage.name for stage in todo if not stage.name.startswith("build ")] == ORDER[call]
    built = set()
    for stage in todo:
        if stage.name.startswith("build "):
            built.add(stage.name.removeprefix("build "))
            assert stage.command[-2:] == ["--architecture", "80"]
        for name in gpu_programs.CPP_PROGRAMS:
            assert name in built or str(gpu_programs.FOLDER / name) not in stage.command
        if "benchmarks/gpu_smoke.py" in stage.command:
            assert gpu_programs.OPS in built


def test_stages_name_files_that_exist():
    commands = [stage.command for call in ORDER for stage in stages(call, (), "90")]
    parts = {part for command in commands for part in command if part.endswith((".py", ".cu"))}
    assert "benchmarks/gpu.py" in parts
    assert "tests/cuda/test_outputs.py" in parts
    assert "tests/tools/test_gpu_check.py" not in parts
    sources = [part for given in gpu_programs.CPP_PROGRAMS.values() for part in given]
    sources = [part for part in sources if part.endswith((".cu", ".cpp"))]
    folders = [part.removeprefix("-I") for part in gpu_programs.INCLUDES]
    for path in (*parts, *sources, *folders):
        assert (stage_runner.ROOT / path).exists(), path


def test_persistent_kernels_that_fail_are_not_used_again():
    for call in ORDER:
        plain, grid, cluster = (stage for stage in stages(call, (), "90") if stage.name in SMOKE)
        assert plain.environment == WITHOUT_PERSISTENT
        assert not plain.if_it_fails
        assert grid.if_it_fails == cluster.if_it_fails == WITHOUT_PERSISTENT
        assert not grid.environment
        assert not cluster.environment


def test_the_calls_share_the_tests():
    first, second = (next(s for s in stages(n, (), "90") if "pytest" in s.command) for n in ORDER)
    expression = first.command[first.command.index("-k") + 1]
    assert second.command[second.command.index("-k") + 1] == f"not ({expression})"
    assert "--maxfail=3" in first.command
    folder = stage_runner.ROOT / "tests/cuda"
    tests = "\n".join(path.read_text() for path in folder.glob("test_*.py"))
    for part in expression.split(" or "):
        assert re.search(rf"^def test_\w*{part}", tests, re.MULTILINE), part


# The programs


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """In the place of the project's: a tree with one source file and programs that load."""
    paths = {"ROOT": tmp_path, "FOLDER": tmp_path / "built", "PACKAGE": tmp_path / "package"}
    for name, path in paths.items():
        path.mkdir(exist_ok=True)
        monkeypatch.setattr(gpu_programs, name, path)
    monkeypatch.setattr(gpu_programs, "STAMP", tmp_path / "built/built-from")
    (tmp_path / "setup.py").write_text("1")
    (tmp_path / "lstm_fastkernels.py").write_text("def cuda_built(): return True")
    for name in (*gpu_programs.PROGRAMS, *(Path(part).name for part in gpu_programs.BUILT)):
        program = tmp_path / "built" / name
        program.write_text('#!/bin/sh\n[ "$1" = --list ]\n')
        program.chmod(0o755)
    gpu_programs.STAMP.write_text(gpu_programs.digest("90"))
    return tmp_path


def test_programs_that_load_are_not_built(folder):
    assert gpu_programs.missing("90") == {}
    assert all((folder / "package" / part).exists() for part in gpu_programs.BUILT)


def test_what_is_carried_is_all_that_the_package_loads():
    """Beside what torch and the system bring."""
    package = Path(lfk.__file__).parent
    for part in gpu_programs.BUILT:
        if (package / part).exists():
            dynamic = subprocess.run(
                ["readelf", "-d", package / part], capture_output=True, text=True
            )
            for needed in re.findall(r"NEEDED.*\[(liblstm_\w+\.so)", dynamic.stdout):
                assert f"lib/{needed}" in gpu_programs.BUILT, f"{part} needs {needed}"


def test_programs_that_do_not_load_are_built(folder):
    (folder / "built/latencies").write_text("#!/bin/sh\necho no such library >&2; exit 1\n")
    (folder / "built/steps").chmod(0o644)
    (folder / "lstm_fastkernels.py").write_text("raise ImportError('undefined symbol')")
    missing = gpu_programs.missing("90")
    assert list(missing) == [gpu_programs.OPS, "steps", "latencies"]
    assert missing["latencies"] == "no such library"
    assert "Permission denied" in missing["steps"]
    assert missing[gpu_programs.OPS] == "ImportError: undefined symbol"


@pytest.mark.parametrize("what", ["source", "architecture", "nothing prebuilt"])
def test_programs_of_other_sources_are_built(folder, what):
    if what == "source":
        (folder / "setup.py").write_text("2")
    if what == "nothing prebuilt":
        gpu_programs.STAMP.unlink()
    missing = gpu_programs.missing("80" if what == "architecture" else "90")
    assert list(missing) == gpu_programs.PROGRAMS


def test_what_a_program_is_linked_with_is_built_first(folder, monkeypatch):
    commands = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: commands.append(command))
    gpu_programs.build(["latencies", "steps"], "90")
    assert [command[1] for command in commands if "setup.py" in command] == ["setup.py"]
    assert [command[0] for command in commands] == ["nvcc", sys.executable, "nvcc"]
    for library in gpu_programs.LIBRARIES:
        (folder / library).parent.mkdir(parents=True, exist_ok=True)
        (folder / library).touch()
    gpu_programs.build(["steps"], "90")
    assert len(commands) == 4


def test_the_ops_library_runs_with_other_versions_of_torch_and_python():
    """It asks for torch's stable C interface alone, and for nothing of Python."""
    path = Path(lfk.__file__).with_name(gpu_programs.OPS)
    done = subprocess.run(
        ["nm", "-D", "--undefined-only", path], capture_output=True, text=True, check=True
    )
    symbols = [line.split()[-1] for line in done.stdout.splitlines()]
    assert "aoti_torch_abi_version" in symbols
    foreign = ("Py", "_Py", "_ZN2at", "_ZNK2at", "_ZN3c10", "_ZNK3c10", "_ZN5torch", "_ZNK5torch")
    assert [name for name in symbols if name.startswith(foreign)] == []


# The smoke test


@pytest.fixture
def on_cpu(monkeypatch):
    monkeypatch.setattr(gpu, "DEVICE", "cpu")
    monkeypatch.setattr(gpu_smoke, "PATHS", {"plain": ("weight_ih_l0", [(16, 1), (40, 3)])})
    monkeypatch.setattr(sys, "argv", ["gpu_smoke.py", "plain"])


def smoke_answers(capsys):
    with pytest.raises(SystemExit) as ended:
        gpu_smoke.main()
    return ended.value.code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_smoke_compares_bits(on_cpu, capsys):
    status, answers = smoke_answers(capsys)
    assert status == 0
    assert [(a["hidden_size"], a["batch"], a["same_bits"]) for a in answers] == [
        (16, 1, True),
        (40, 3, True),
    ]


def test_smoke_fails_on_one_wrong_bit(on_cpu, capsys, monkeypatch):
    class Wrong(torch.nn.Module):
        """Of one bit, in c."""

        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, x):
            y, (h, c) = self.module(x)
            c.view(torch.int32)[0, 0, 0] ^= 1
            return y, (h, c)

        def to(self, device):
            return self

    monkeypatch.setattr(gpu_smoke.copy, "deepcopy", Wrong)
    monkeypatch.setattr(gpu_smoke.lfk, "explain", lambda module, x: "header\nlayer 0: anything")
    status, answers = smoke_answers(capsys)
    assert status == 1
    assert answers[0]["differences_of_y_h_c"][0] == [0, 0, 1]


# The program


@pytest.mark.parametrize("call", ORDER)
def test_a_dry_run_prints_the_stages(call):
    command = [sys.executable, gpu_check.__file__, "--dry-run", "--call", str(call)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for line, name in zip(done.stdout.splitlines(), ORDER[call], strict=True):
        assert line.startswith(f"{name} ")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_without_a_device_it_says_so():
    done = subprocess.run([sys.executable, gpu_check.__file__], capture_output=True, text=True)
    assert done.returncode == 1
    assert "no CUDA device" in done.stderr
