"""What each matrix multiplies, found from the float layers, against a loop over steps."""

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from cases import Case
from lstm_fastkernels.compression.calibration.calls import call_of
from lstm_fastkernels.compression.calibration.moments import FloatLayers, Moments
from lstm_fastkernels.modules.float_lstm import shape_of

CASES = [
    Case(3, 5, T=4, B=3),
    Case(9, 7, 3, bias=False, T=5, B=2),
    Case(4, 6, 2, bidirectional=True, T=6, B=5),
    Case(5, 8, 2, bidirectional=True, proj_size=3, T=5, B=4),
    Case(2, 9, 2, proj_size=1, T=1, B=1),
]


def by_steps(lstm, x, h0, c0, lengths):
    """Rows of each matrix's operand by its name, float64, one row of the batch after the other."""
    floats = {name: p.detach().double() for name, p in lstm.named_parameters()}
    found = {name: [] for name in floats if name.startswith("weight")}
    for b, length in enumerate(lengths.tolist()):
        inputs = list(x[:length, b].double())
        for depth in range(lstm.num_layers):
            halves = []
            for d, end in enumerate(["", "_reverse"][: 1 + lstm.bidirectional]):
                cell, suffix = depth * (1 + lstm.bidirectional) + d, f"_l{depth}{end}"
                h, c = h0[cell, b].double(), c0[cell, b].double()
                outputs = [None] * length
                for t in reversed(range(length)) if d else range(length):
                    found[f"weight_ih{suffix}"].append(inputs[t])
                    found[f"weight_hh{suffix}"].append(h)
                    gates = floats[f"weight_ih{suffix}"] @ inputs[t]
                    gates = gates + floats[f"weight_hh{suffix}"] @ h
                    if lstm.bias:
                        gates = gates + floats[f"bias_ih{suffix}"] + floats[f"bias_hh{suffix}"]
                    i, f, g, o = gates.chunk(4)
                    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                    h = o.sigmoid() * c.tanh()
                    if lstm.proj_size:
                        found[f"weight_hr{suffix}"].append(h)
                        h = floats[f"weight_hr{suffix}"] @ h
                    outputs[t] = h
                halves.append(outputs)
            inputs = [torch.cat(parts) for parts in zip(*halves, strict=True)]
    return {name: torch.stack(rows) for name, rows in found.items()}


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_operands_are_those_of_a_loop_over_steps(case, ragged):
    lstm, x, hx = case.lstm(), case.x(), case.state()
    lengths = case.lengths() if ragged else torch.full((case.B,), case.T)
    given = pack_padded_sequence(x, lengths, enforce_sorted=False) if ragged else x
    with torch.no_grad():
        call = call_of(lstm, (given, hx), {}, lstm(given, hx))
    layers = FloatLayers(shape_of(lstm), dict(lstm.named_parameters()))
    expected = by_steps(lstm, x, *hx, lengths)
    found = dict(layers.operands(call))
    assert found.keys() == expected.keys()
    for name, rows in expected.items():
        actual = found[name].double()
        assert actual.shape == rows.shape, name
        # Of the same rows, in another order: so are their moments.
        torch.testing.assert_close(actual.T @ actual, rows.T @ rows, rtol=1e-4, atol=1e-5)
        assert torch.allclose(actual.sum(0), rows.sum(0), rtol=1e-4, atol=1e-4), name


def test_moments_are_those_of_all_rows():
    rows = torch.randn(10_000, 7)
    moments = Moments(7)
    for part in rows.split([1, 0, 4999, 5000]):
        moments.add(part)
    assert moments.count == 10_000
    exact = rows.double().T @ rows.double() / 10_000
    torch.testing.assert_close(moments.second, exact, rtol=1e-12, atol=1e-12)
    assert torch.equal(Moments(3).second, torch.zeros(3, 3, dtype=torch.float64))


def test_cells_are_lstms_of_one_step():
    cell = torch.nn.LSTMCell(3, 5)
    x, h, c = torch.randn(4, 3), torch.randn(4, 5), torch.randn(4, 5)
    floats = {f"{name}_l0": p for name, p in cell.named_parameters()}
    layers = FloatLayers(shape_of(cell), floats)
    for rows in (slice(None), 2):
        with torch.no_grad():
            output = cell(x[rows], (h[rows], c[rows]))
        call = call_of(cell, (x[rows],), {"hx": (h[rows], c[rows])}, output)
        found = dict(layers.operands(call))
        assert torch.equal(found["weight_ih_l0"], x[rows].view(-1, 3))
        assert torch.equal(found["weight_hh_l0"], h[rows].view(-1, 5))
        assert torch.equal(call.y[0], output[0].view(-1, 5))
