"""benchmarks/streaming.py: what it takes of the C++ program's steps."""

from argparse import Namespace

import numpy as np
import pytest

import measuring
import streaming
from workloads import Workload

TINY = Workload("stream", 3, 5, batch=1, steps=4, streaming=True)


def test_percentiles_are_those_of_all_single_steps(monkeypatch):
    isas = measuring.instruction_sets()
    if not isas:
        pytest.skip("only the scalar kernels run here")
    monkeypatch.setattr(streaming, "SLOT_SECONDS", 0.001)
    each = []
    with measuring.compiled(streaming.HERE / "streaming.cpp") as run:

        def step_in_cpp(*arguments, environment):
            found = run(*arguments, environment=environment)
            each.extend(found["each_us"])
            return found

        times = streaming.time_steps(TINY, isas[0], step_in_cpp, Namespace(repeats=3, steps=100))
    assert len(each) == 3 * 34
    assert min(each) > 0
    found = times["each_us"]
    assert list(found) == ["p50", "p99", "p99.9"]
    assert found["p50"] == pytest.approx(np.median(each))
    assert np.median(each) <= found["p99"] <= found["p99.9"] <= max(each)
    assert list(times["median_us"]) == ["C++", "NumPy", "step", "forward", "nn.LSTM"]
