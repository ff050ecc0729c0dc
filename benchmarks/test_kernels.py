"""Microbenchmarks of the fused kernels, for each instruction set of this machine.

taskset -c 0 python -m pytest benchmarks --benchmark-only --benchmark-group-by=param:hidden_size
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import lstm_fastkernels as lfk


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The rates are those of one core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["scalar", "avx2", "avx512vnni"])
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
    input_size = hidden_size // 2
    products = 4 * hidden_size * (input_size + hidden_size) * batch * steps
    if isa == "scalar" and products > 1e9:
        pytest.skip("the scalar reference would take seconds a call")
    generator = torch.Generator().manual_seed(0)
    lstm = torch.nn.LSTM(input_size, hidden_size).requires_grad_(False)
    for parameter in lstm.parameters():
        torch.nn.init.normal_(parameter, std=hidden_size**-0.5, generator=generator)
    module = lfk.FastQuantLSTM.from_float(lstm, activations=activations)
    inputs = torch.randn(steps, batch, input_size, generator=generator)

    with torch.inference_mode():
        benchmark(module, inputs)

    if benchmark.enabled:
        benchmark.extra_info["GMAC/s"] = products / benchmark.stats.stats.median * 1e-9
