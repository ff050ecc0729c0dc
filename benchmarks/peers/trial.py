"""Whether a library runs on this machine: python -m peers.trial MODULE fails if it does not."""

import importlib
import sys

import torch

from peers.peer import as_array
from workloads import Workload

SIZES = {"input_size": 40, "hidden_size": 128, "batch": 1, "steps": 3}
WORKLOADS = [Workload("sequence", **SIZES), Workload("streaming", **SIZES, streaming=True)]


def main() -> None:
    for make in importlib.import_module(f"peers.{sys.argv[1]}").PEERS.values():
        for workload in WORKLOADS:
            with torch.inference_mode():
                run = make(workload, workload.float_lstm(), 1)
                if run:
                    as_array(run())


if __name__ == "__main__":
    main()
