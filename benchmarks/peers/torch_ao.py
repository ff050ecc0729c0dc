"""torch's dynamically quantized LSTM."""

from torch import nn

from peers.peer import Run, run_module
from quantizers import torch_int8
from workloads import Workload


def _make(workload: Workload, lstm: nn.LSTM, threads: int) -> Run:
    return run_module(workload, torch_int8(lstm))


PEERS = {"torch int8": _make}
