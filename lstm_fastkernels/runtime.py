"""Runs what save_file wrote on NumPy arrays: needs NumPy, not torch.

    lstm = LSTM.load("lstm.safetensors")
    y = lstm.forward(x)  # float32 or float16 [T, B, I]

    state = lstm.state()  # of one stream
    y = lstm.step(x, state)  # [I] -> [O]

    batch = StreamBatch(lstm, capacity=200)
    stream = batch.join()
    y = batch.tick([stream], x)  # [1, I] -> [1, O]

Outputs and states are those of the torch module, bit by bit. The instruction set is chosen apart
from that of the torch ops.
"""

import sys
from pathlib import Path

from lstm_fastkernels.paths import HOW_TO_BUILD

try:
    from lstm_fastkernels._runtime import (
        LSTM,
        State,
        StreamBatch,
        get_isa,
        release_memory,
        set_isa,
        supported_isas,
    )
except ModuleNotFoundError as error:
    if error.name != "lstm_fastkernels._runtime":
        raise
    package = Path(__file__).parent
    if (package / "lib").exists() and not [*package.glob("lib/*_file.*")]:
        raise ImportError(
            "lstm_fastkernels was built with LSTM_FASTKERNELS_FILE=0, without the NumPy runtime. "
            f"{HOW_TO_BUILD}"
        ) from error
    there = ", ".join(path.name for path in package.glob("_runtime.*.so"))
    raise ImportError(
        "lstm_fastkernels was not built for this Python: _runtime for "
        f"{sys.implementation.cache_tag} is missing, there is {there or 'none'}. {HOW_TO_BUILD}"
    ) from error

__all__ = [
    "LSTM",
    "State",
    "StreamBatch",
    "get_isa",
    "release_memory",
    "set_isa",
    "supported_isas",
]
