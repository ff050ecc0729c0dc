"""What other quantizers make of an nn.LSTM, called as nn.LSTM is."""

from __future__ import annotations

import contextlib
import importlib
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

Quantizer = Callable[[nn.LSTM], nn.Module]


def importable(*modules: str) -> bool:
    """Whether all of these are installed."""
    try:
        for module in modules:
            importlib.import_module(module)
    except ImportError:
        return False
    return True


def available_quantizers(lstm: nn.LSTM, *, streaming: bool = False) -> dict[str, Quantizer]:
    """By name, those that are installed and can quantize such an LSTM."""
    quantizers: dict[str, Quantizer] = {}
    if importable("torch.ao.quantization") and not lstm.proj_size:
        quantizers["torch int8"] = torch_int8
    if importable("onnx", "onnxruntime") and not lstm.proj_size:
        for name, per_channel in (("ORT int8", False), ("ORT int8 per channel", True)):
            quantizers[name] = partial(OnnxLSTM, streaming=streaming, per_channel=per_channel)
    return quantizers


def torch_int8(lstm: nn.LSTM) -> nn.Module:
    """torch.ao.quantization.quantize_dynamic: a scale for each matrix."""
    from torch.ao.quantization import quantize_dynamic

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and still what people use
        # It replaces children only, so the module needs a parent.
        model = quantize_dynamic(nn.Sequential(lstm), {nn.LSTM}, dtype=torch.qint8)
    return model[0]


class OnnxLSTM(nn.Module):
    """ONNX Runtime's own int8 LSTM, quantized by its quantize_dynamic: weights of 8 bits.

    `streaming` takes a step at a time, (x, state) -> (y, state), of an LSTM of one layer; otherwise
    a call takes whole sequences from a zero state and returns (y, None). `size` is the bytes of the
    model file.
    """

    def __init__(self, lstm: nn.LSTM, *, streaming: bool, per_channel: bool) -> None:
        super().__init__()
        import onnxruntime

        from onnx_lstm import lstm_model

        model = _quantize(lstm_model(lstm, streaming, quantized=False), per_channel)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self.session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        self.size = len(model)
        self.streaming, self.batch_first = streaming, lstm.batch_first
        self.hidden_size = lstm.hidden_size

    def forward(self, x: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        steps = (x.transpose(0, 1) if self.batch_first else x).contiguous().numpy()
        if not self.streaming:
            y = torch.from_numpy(self.session.run(None, {"x": steps})[0])
            return (y.transpose(0, 1) if self.batch_first else y), None
        if state is None:
            zeros = torch.zeros(1, steps.shape[1], self.hidden_size)
            state = zeros, zeros
        inputs = {"x": steps, "h0": state[0].numpy(), "c0": state[1].numpy()}
        h, c = map(torch.from_numpy, self.session.run(["h", "c"], inputs))
        return (h.transpose(0, 1) if self.batch_first else h), (h, c)


def int8_rows(weight: np.ndarray, largest: int) -> tuple[np.ndarray, np.ndarray]:
    """Integers of up to `largest`, and a float32 scale for each row of the last dimension."""
    scale = np.abs(weight).max(axis=-1) / np.float32(largest)
    scale[scale == 0] = 1  # of a row that is pruned away
    return np.rint(weight / scale[..., None]).astype(np.int8), scale


def saved_bytes(lstm: Any) -> int:
    """The bytes of an LSTM's weights, scales and biases in a file."""
    if isinstance(lstm, OnnxLSTM):
        return lstm.size
    if hasattr(lstm, "get_weight"):  # torch.ao's
        tensors = [*lstm.get_weight().values(), *lstm.get_bias().values()]
    else:
        tensors = list(lstm.state_dict().values())
    return sum(tensor.nbytes for tensor in tensors)


def _quantize(model: bytes, per_channel: bool) -> bytes:
    """The ONNX model with the weights of its LSTMs in int8."""
    import onnx
    from onnxruntime.quantization import quantize_dynamic

    with tempfile.TemporaryDirectory() as folder, _quiet():
        target = Path(folder, "int8.onnx")
        quantize_dynamic(onnx.load_from_string(model), target, per_channel=per_channel)
        return target.read_bytes()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice that ONNX Runtime logs to prepare the model first."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
