"""benchmarks/gpu.py, as far as it goes without a device."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

import gpu
from workloads import Pruning, Workload

TINY = {"input_size": 32, "hidden_size": 32, "batch": 2, "steps": 6}
TINY_JOBS = [
    gpu.Job(Workload("sequence", **TINY)),
    gpu.Job(Workload("both", **TINY, num_layers=2, bidirectional=True)),
    gpu.Job(Workload("packed", **TINY), packed=True),
    gpu.Job(Workload("streaming", **TINY, streaming=True)),
    gpu.Job(Workload("sparse", **TINY, pruning=Pruning(0.5, gpu.BLOCK))),
]


@pytest.fixture
def on_cpu(monkeypatch):
    """The CPU in the place of the device; a "graph" calls again and copies the outputs."""

    def captured(call):
        outputs = call()
        return type("Graph", (), {"replay": lambda self: outputs.copy_(call())})(), outputs

    def milliseconds(run, calls):
        start = time.perf_counter()
        run()
        return (time.perf_counter() - start) * 1e3

    monkeypatch.setattr(gpu, "DEVICE", "cpu")
    monkeypatch.setattr(gpu, "captured", captured)
    monkeypatch.setattr(gpu, "milliseconds", milliseconds)


@pytest.mark.parametrize("job", TINY_JOBS, ids=lambda job: job.name)
def test_every_peer_does_the_work(job, on_cpu):
    part = gpu.compare(job, rounds=2, peers=["*"])
    assert part["faults"] == {}
    results = {result["peer"]: result for result in part["results"]}
    assert list(results) == job.peers()
    for peer, result in results.items():
        for way in ("eager", "graph"):
            assert result["median_us"][way] > 0
            assert part["snr_db"][f"{peer} {way}"] > (25 if peer.startswith("ours") else 35)


def test_only_the_peers_that_are_asked_for(on_cpu):
    part = gpu.compare(TINY_JOBS[0], rounds=1, peers=["ours *", "cuDNN float16"])
    assert [r["peer"] for r in part["results"]] == ["ours float32", "ours float16", "cuDNN float16"]


def test_jobs_come_in_the_order_of_the_patterns():
    assert [job.name for job in gpu.picked(gpu.FIRST)] == gpu.FIRST
    names = [job.name for job in gpu.picked(["S_*", "*_B1_H512", "nothing"])]
    assert names[:2] == ["S_B1_H768", "S_B16_H768"]
    assert names.count("S_B1_H512") == 1
    assert names[-3:] == ["Q_B1_H512", "L2_B1_H512", "bi_B1_H512"]


def test_a_line_for_each_job_when_it_is_done(on_cpu, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "jobs", lambda: TINY_JOBS[:2])
    monkeypatch.setattr(gpu, "about", lambda: {})
    monkeypatch.setattr(gpu, "limits", lambda: {"copy_gbs": 1.0})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--lines", "--rounds", "1"])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert ended.value.code == 0
    *jobs, last = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [job["name"] for job in jobs] == ["sequence", "both"]
    assert last == {"limits": {"copy_gbs": 1.0}, "left_out": []}


def test_jobs():
    jobs = gpu.jobs()
    assert len({job.name for job in jobs}) == len(jobs)
    assert (jobs[0].name, jobs[0].workload.steps) == ("Q_B16_H768", 1024)
    for job in jobs:
        lengths = job.lengths().tolist()
        assert lengths == sorted(lengths, reverse=True)
        assert len(lengths) == job.workload.batch
        assert lengths[0] == job.workload.steps


def test_results_take_the_faster_way_and_ratios_within_rounds():
    times = {
        ("ours float32", "eager"): np.array([4.0, 8.0, 4.0]),
        ("ours float32", "graph"): np.array([1.0, 2.0, 1.0]),
        ("ours dense float16", "graph"): np.array([0.5, 0.5, 0.5]),
        ("cuDNN float16", "eager"): np.array([3.0, 6.0, 30.0]),
    }
    ours, dense, peer = gpu.results_of(times, steps=10)
    assert ours == {
        "peer": "ours float32",
        "median_us": {"eager": 400.0, "graph": 100.0},
        "ratio_to_ours": 1.0,
    }
    assert dense["ratio_to_ours"] == 0.5
    assert peer["ratio_to_ours"] == 3.0


def test_results_without_ours():
    (peer,) = gpu.results_of({("cuDNN float16", "eager"): np.array([3.0])}, steps=1)
    assert peer["ratio_to_ours"] is None


def test_the_report_has_all_peers_faults_and_what_was_left_out():
    job = {
        "name": "Q",
        "results": gpu.results_of({("cuDNN float16", "eager"): np.array([3.0])}, steps=1),
        "faults": {"ours dense": "no kernel"},
    }
    report = {
        **{"device": "X", "torch": "2", "cudnn": 9, "driver": None},
        **{"limits": {"copy_gbs": 3000.0}, "jobs": [job], "left_out": ["Z"]},
    }
    text = gpu.markdown(report)
    assert "| Q |  |  | 3000 |  |  |  |" in text
    assert "Q: ours dense: no kernel" in text
    assert "left out for want of time: Z" in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_without_a_device_it_says_so():
    done = subprocess.run([sys.executable, gpu.__file__], capture_output=True, text=True)
    assert done.returncode == 2
    assert "no CUDA device" in done.stderr
