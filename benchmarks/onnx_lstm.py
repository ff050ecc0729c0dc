"""An nn.LSTM as an ONNX model, in float32 or with ONNX Runtime's own int8 operator.

The graph is written by hand, so that it holds nothing but the LSTM and what joins its layers.
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from torch import nn

from quantizers import int8_rows

# The inputs of ONNX's LSTM after x, and those that DynamicQuantizeLSTM has behind them.
SLOTS = ["W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"]
QUANTIZED_SLOTS = [*SLOTS, "W_scale", "W_zero_point", "R_scale", "R_zero_point"]

# Weights of 7 bits, which ONNX Runtime's quantizer calls `reduce_range`: the AVX2 kernel adds two
# products in 16 bits, and saturates with weights of 8 bits.
LARGEST_WEIGHT = 64


def lstm_model(lstm: nn.LSTM, streaming: bool, quantized: bool) -> bytes:
    """The serialized model: x -> y; when streaming (one layer only), (x, h0, c0) -> (h, c)."""
    nodes: list[NodeProto] = []
    constants: dict[str, np.ndarray] = {}
    x = "x"
    for layer in range(lstm.num_layers):
        parameters = _parameters(lstm, layer, quantized)
        constants |= {f"{slot}_{layer}": array for slot, array in parameters.items()}
        names = {slot: f"{slot}_{layer}" for slot in parameters}
        if streaming:
            names |= {"initial_h": "h0", "initial_c": "c0"}
        nodes.append(
            helper.make_node(
                "DynamicQuantizeLSTM" if quantized else "LSTM",
                [x, *(names.get(slot, "") for slot in (QUANTIZED_SLOTS if quantized else SLOTS))],
                ["", "h", "c"] if streaming else [f"split_{layer}"],
                domain="com.microsoft" if quantized else "",
                hidden_size=lstm.hidden_size,
                direction="bidirectional" if lstm.bidirectional else "forward",
            )
        )
        if not streaming:
            constants["merged"] = np.array([0, 0, -1])
            nodes += _merge_directions(f"split_{layer}", f"y_{layer}")
            x = f"y_{layer}"

    inputs, outputs = (["x", "h0", "c0"], ["h", "c"]) if streaming else (["x"], [x])
    graph = helper.make_graph(
        nodes,
        "lstm",
        [_float_value(name) for name in inputs],
        [_float_value(name) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return model.SerializeToString()


def _parameters(lstm: nn.LSTM, layer: int, quantized: bool) -> dict[str, np.ndarray]:
    """The tensors of a layer, each with the directions stacked in front."""

    def stacked(name: str) -> np.ndarray:
        suffixes = [f"_l{layer}", f"_l{layer}_reverse"][: 1 + lstm.bidirectional]
        return np.stack([_onnx_gates(getattr(lstm, name + suffix).numpy()) for suffix in suffixes])

    weights = {"W": stacked("weight_ih"), "R": stacked("weight_hh")}
    bias = np.concatenate([stacked("bias_ih"), stacked("bias_hh")], axis=1)
    if not quantized:
        return {**weights, "B": bias}
    parameters = {"B": bias}
    for slot, weight in weights.items():
        rows, scale = int8_rows(weight, LARGEST_WEIGHT)
        parameters[slot] = np.ascontiguousarray(rows.transpose(0, 2, 1))
        parameters[f"{slot}_scale"] = scale
        parameters[f"{slot}_zero_point"] = np.zeros_like(scale, dtype=np.int8)
    return parameters


def _onnx_gates(rows: np.ndarray) -> np.ndarray:
    """Rows in torch's order of the gates (i, f, g, o) in ONNX's order (i, o, f, g)."""
    i, f, g, o = np.split(rows, 4)
    return np.concatenate([i, o, f, g])


def _merge_directions(split: str, merged: str) -> list[NodeProto]:
    """[steps, directions, batch, hidden] -> [steps, batch, directions * hidden]."""
    return [
        helper.make_node("Transpose", [split], [f"{split}_turned"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", [f"{split}_turned", "merged"], [merged]),
    ]


def _float_value(name: str) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None, None])
