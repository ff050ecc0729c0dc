"""Under autocast, calls take and give the dtypes that nn.LSTM and nn.LSTMCell do."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

from cases import Case, assert_same
from isas import everywhere
from torch_bfloat16 import IN_BFLOAT16, needs_bfloat16

CASE = Case(5, 9, 2, T=3, B=2)
FLOATS = [torch.float32, torch.bfloat16, torch.float16]
STATES = [None, *itertools.product(FLOATS, FLOATS)]


def cast(tensors, dtypes):
    return dtypes and tuple(t.to(dtype) for t, dtype in zip(tensors, dtypes, strict=True))


def dtypes_of(result):
    return [t.dtype for t in (result[0], *result[1])]


@pytest.mark.parametrize("state", STATES, ids=str)
@pytest.mark.parametrize("x", FLOATS, ids=str)
def test_sequences(x, state):
    """nn.LSTM on the CPU casts all to autocast's dtype; float16 it has on few machines."""
    fast, inputs, hx = CASE.fast(), CASE.x().to(x), cast(CASE.state(), state)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.no_grad(), torch.autocast("cpu", dtype):
            found = everywhere(fast)(inputs, hx)
            if IN_BFLOAT16 and dtype == torch.bfloat16 and x != torch.float16:
                same = state is None or state[0] == state[1] != torch.float16
                if same:
                    assert dtypes_of(found) == dtypes_of(CASE.lstm()(inputs, hx))
        assert dtypes_of(found) == [dtype] * 3
        halves = hx and tuple(t.to(dtype) for t in hx)
        assert_same(found, fast(inputs.to(dtype), halves))


@pytest.mark.parametrize("state", [None, *FLOATS], ids=str)
@pytest.mark.parametrize("x", FLOATS, ids=str)
def test_cells(x, state):
    """nn.LSTMCell casts its products alone: the state is as wide as the one before."""
    inputs = CASE.x()[0].to(x)
    hx = cast([t[0] for t in CASE.state()], state and (state, state))
    case = replace(CASE, num_layers=1)
    for dtype in (torch.bfloat16, torch.float16):
        for unbatched in (False, True):
            one = (inputs[0], hx and tuple(t[0] for t in hx)) if unbatched else (inputs, hx)
            with torch.no_grad(), torch.autocast("cpu", dtype):
                found, expected = case.fast_cell()(*one), case.cell()(*one)
            assert [t.dtype for t in found] == [t.dtype for t in expected]
            for f, e in zip(found, expected, strict=True):
                torch.testing.assert_close(f.float(), e.float(), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("way", ["exported", "compiled"])
def test_graphs(way):
    fast = CASE.fast()
    if way == "exported":
        run = torch.export.export(fast, (CASE.x(), CASE.state())).module()
    else:
        torch.compiler.reset()
        run = torch.compile(fast, fullgraph=True, backend="aot_eager")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert_same(run(CASE.x(), CASE.state()), fast(CASE.x(), CASE.state()))
        assert run(CASE.x(), CASE.state())[0].dtype == torch.bfloat16


@needs_bfloat16
def test_an_encoder_and_a_decoder():
    """The encoder's states are in autocast's dtype, what the decoder reads is float32."""

    class Translator(nn.Module):
        def __init__(self, lstm):
            super().__init__()
            self.encoder, self.decoder = lstm(), lstm()

        def forward(self, source, target):
            _, state = self.encoder(source)
            return self.decoder(target, state)[0]

    x = CASE.x()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = Translator(CASE.lstm)(x, x)
        found = Translator(CASE.fast)(x, x)
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found.float(), expected.float(), atol=0.05, rtol=0.05)


def test_outside_nothing_is_cast():
    fast = CASE.fast()
    with torch.autocast("cpu", torch.bfloat16, enabled=False):
        assert fast(CASE.x())[0].dtype == torch.float32
    with torch.autocast("cuda", torch.bfloat16):
        assert fast(CASE.x())[0].dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match="float64"):
        fast(CASE.x().double())
