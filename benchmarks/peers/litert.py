"""LiteRT's LSTM operator with int8 weights, a scale for each gate's matrix; one direction."""

from __future__ import annotations

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from torch import nn

from peers.peer import Run, in_place
from workloads import Workload

# The operator's inputs: those that are left out are -1.
INPUTS = 24
LEFT_OUT = -1
INPUT, INPUT_WEIGHTS, RECURRENT_WEIGHTS, BIASES, STATES = 0, 1, 5, 12, 18


def _make(workload: Workload, lstm: nn.LSTM, threads: int) -> Run | None:
    if workload.bidirectional or workload.num_layers > 1:
        return None
    inputs = workload.inputs().numpy()
    steps = 1 if workload.streaming else workload.steps
    model = _Model(lstm, steps, workload.batch).serialized()
    interpreter = Interpreter(model_content=model, num_threads=threads)
    interpreter.allocate_tensors()
    x = interpreter.get_input_details()[0]["index"]
    y = interpreter.get_output_details()[0]["index"]

    def call(frames: np.ndarray, state: None) -> np.ndarray:
        interpreter.set_tensor(x, frames)
        interpreter.invoke()
        return interpreter.get_tensor(y)

    frames = np.split(inputs, len(inputs) // steps)
    return in_place(call, frames, interpreter.reset_all_variables)


class _Model:
    """A model of one operator; the state is two variables that stay from call to call."""

    def __init__(self, lstm: nn.LSTM, steps: int, batch: int) -> None:
        self._tensors: list[schema.TensorT] = []
        self._buffers = [schema.BufferT()]  # the first one is empty
        rows = lstm.hidden_size
        inputs = [LEFT_OUT] * INPUTS
        inputs[INPUT] = self._float_tensor("x", (steps, batch, lstm.input_size))
        state = lstm.state_dict()
        bias = state["bias_ih_l0"] + state["bias_hh_l0"]
        for gate in range(4):  # in torch's order, i, f, g, o
            part = slice(gate * rows, (gate + 1) * rows)
            ih, hh = (state[f"weight_{kind}_l0"][part].numpy() for kind in ("ih", "hh"))
            inputs[INPUT_WEIGHTS + gate] = self._int8_tensor(f"ih{gate}", ih)
            inputs[RECURRENT_WEIGHTS + gate] = self._int8_tensor(f"hh{gate}", hh)
            inputs[BIASES + gate] = self._constant(f"bias{gate}", bias[part].numpy())
        for i, name in enumerate(("h", "c")):
            inputs[STATES + i] = self._float_tensor(name, (batch, rows), is_variable=True)
        output = self._float_tensor("y", (steps, batch, rows))

        options = schema.UnidirectionalSequenceLSTMOptionsT()
        options.fusedActivationFunction = schema.ActivationFunctionType.TANH
        options.timeMajor = True
        operator = schema.OperatorT()
        operator.inputs, operator.outputs = inputs, [output]
        operator.builtinOptionsType = schema.BuiltinOptions.UnidirectionalSequenceLSTMOptions
        operator.builtinOptions = options
        self._graph = schema.SubGraphT()
        self._graph.tensors = self._tensors
        self._graph.inputs, self._graph.outputs = [inputs[INPUT]], [output]
        self._graph.operators = [operator]

    def serialized(self) -> bytes:
        code = schema.OperatorCodeT()
        code.builtinCode = schema.BuiltinOperator.UNIDIRECTIONAL_SEQUENCE_LSTM
        code.deprecatedBuiltinCode = code.builtinCode
        model = schema.ModelT()
        model.version = 3
        model.operatorCodes, model.subgraphs = [code], [self._graph]
        model.buffers = self._buffers
        builder = flatbuffers.Builder()
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _float_tensor(self, name: str, shape: tuple[int, ...], is_variable: bool = False) -> int:
        return self._tensor(name, shape, schema.TensorType.FLOAT32, is_variable=is_variable)

    def _constant(self, name: str, array: np.ndarray, scale: float | None = None) -> int:
        """A tensor with a value; int8 with a scale, or float32."""
        kind = schema.TensorType.FLOAT32 if scale is None else schema.TensorType.INT8
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(array.tobytes(), np.uint8)
        self._buffers.append(buffer)
        return self._tensor(name, array.shape, kind, buffer=len(self._buffers) - 1, scale=scale)

    def _int8_tensor(self, name: str, weight: np.ndarray) -> int:
        scale = float(np.abs(weight).max()) / 127
        return self._constant(name, np.rint(weight / scale).astype(np.int8), scale)

    def _tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        kind: int,
        buffer: int = 0,
        scale: float | None = None,
        is_variable: bool = False,
    ) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name, list(shape), kind
        tensor.buffer, tensor.isVariable = buffer, is_variable
        if scale is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [0]
        self._tensors.append(tensor)
        return len(self._tensors) - 1


PEERS = {"LiteRT int8": _make}
