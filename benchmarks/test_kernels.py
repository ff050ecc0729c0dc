"""Microbenchmarks of the fused kernels, for each instruction set of this machine.

taskset -c 0 python -m pytest benchmarks --benchmark-only --benchmark-group-by=param:hidden_size
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import lstm_fastkernels as lfk
from workloads import Pruning, Workload


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The rates are those of one core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["scalar", "avx2", "avx512vnni", "amx"])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set in turn; afterwards the one from before is back."""
    if request.param not in lfk.supported_isas():
        pytest.skip(f"{request.param} is not supported here")
    before = lfk.get_isa()
    lfk.set_isa(request.param)
    yield request.param
    lfk.set_isa(before)


@pytest.mark.parametrize("steps", [1, 100])
@pytest.mark.parametrize("batch", [1, 8, 32])
@pytest.mark.parametrize("hidden_size", [128, 256, 512, 1024])
@pytest.mark.parametrize("activations", ["int8", "int16"])
def test_fast_quant_lstm(
    benchmark: Any, isa: str, activations: str, hidden_size: int, batch: int, steps: int
) -> None:
    """One call, from Python, with half as many inputs as hidden units."""
    workload = Workload("", hidden_size // 2, hidden_size, batch, steps)
    if isa == "scalar" and workload.weights() * batch * steps > 1e9:
        pytest.skip("the scalar reference would take seconds a call")
    module = lfk.FastQuantLSTM.from_float(workload.float_lstm(), activations=activations)
    _time(benchmark, module, workload)


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("density", [0.1, 0.5])
@pytest.mark.parametrize(
    ("weights", "layout"),
    [("int8", "dense"), ("int8", "block_sparse"), ("float32", "block_sparse")],
)
def test_pruned_lstm(
    benchmark: Any, isa: str, weights: str, layout: str, density: float, batch: int
) -> None:
    """One call for a model of which 8x4 blocks stay; the rate counts only their products."""
    workload = Workload("", 128, 256, batch, steps=50, pruning=Pruning(density, (8, 4)))
    module = lfk.convert(workload.float_lstm(), weights=weights, layout=layout)
    _time(benchmark, module, workload)


def _time(benchmark: Any, module: torch.nn.Module, workload: Workload) -> None:
    with torch.inference_mode():
        benchmark(module, workload.inputs())

    if benchmark.enabled:
        products = workload.weights() * workload.batch * workload.steps
        benchmark.extra_info["GMAC/s"] = products / benchmark.stats.stats.median * 1e-9
