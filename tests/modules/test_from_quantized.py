"""What torch.ao has quantized dynamically, taken over integer by integer."""

import math

import pytest
import torch
from torch import nn

import lstm_fastkernels as lfk
from cases import AWKWARD, Case, assert_by_contract, flat, prune_blocks_
from isas import assert_same_bits, everywhere
from torch_ao import quantize, with_zero_point

CASES = [
    *(Case(a, b, T=3) for a, b in zip(AWKWARD, AWKWARD[::-1], strict=True)),
    Case(9, 31, 3, bidirectional=True, batch_first=True),
    Case(31, 9, 2, seed=1),
]


def parts_of(weight):
    """int8 [N, K] and float32 [N] of torch.ao's matrix."""
    if weight.qscheme() == torch.per_tensor_affine:
        return weight.int_repr(), torch.full((len(weight),), weight.q_scale())
    return weight.int_repr(), weight.q_per_channel_scales().float()


def check_tensors(fast, quantized):
    """The module's tensors are those of the quantized one."""
    state, biases = fast.state_dict(), quantized.get_bias()
    for name, weight in quantized.get_weight().items():
        own = name if "_l" in name else f"{name}_l0"
        integers, scale = parts_of(weight)
        assert torch.equal(state[own], integers), name
        assert torch.equal(state[f"{own}_scale"], scale), name
    for name, bias in biases.items():
        if name.startswith("bias_ih"):
            own = "bias" + (name.removeprefix("bias_ih") or "_l0")
            assert torch.equal(state[own], bias + biases[name.replace("_ih", "_hh")]), name


@pytest.mark.parametrize("qconfig", ["per tensor", "per channel"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_integers_and_scales_are_theirs(case, qconfig):
    quantized = quantize(case.lstm(), qconfig)
    fast = lfk.FastQuantLSTM.from_quantized(quantized)
    check_tensors(fast, quantized)
    assert (fast.batch_first, fast.training) == (case.batch_first, False)
    if case.num_layers == 3:
        assert any((t == -128).any() for t in fast.state_dict().values())
    assert_by_contract(fast, case.x(), case.state(), message=str(case))


@pytest.mark.parametrize("qconfig", ["per tensor", "per channel"])
def test_outputs_are_at_least_as_near_to_those_of_the_weights(qconfig):
    """torch.ao has one scale for a whole batch of activations, this library one for each row."""
    case = Case(40, 64, 2, bidirectional=True, T=50, B=8)
    quantized = quantize(case.lstm(), qconfig)
    fast = lfk.FastQuantLSTM.from_quantized(quantized)
    with torch.no_grad():
        exact = flat(fast.dequantize().double()(case.x().double()))
        for ours, theirs, e in zip(
            flat(fast(case.x())), flat(quantized(case.x())), exact, strict=True
        ):
            assert (ours - e).square().mean() <= (theirs - e).square().mean()


@pytest.mark.parametrize("qconfig", ["per tensor", "per channel"])
@pytest.mark.parametrize("hidden_size", [1, 9, 129])
def test_cells(hidden_size, qconfig):
    case = Case(9, hidden_size)
    quantized = quantize(case.cell(), qconfig)
    fast = lfk.FastQuantLSTMCell.from_quantized(quantized)
    check_tensors(fast, quantized)
    lstm = lfk.FastQuantLSTM.from_quantized(quantize(case.lstm(), qconfig))
    x = case.x()
    h, c = everywhere(fast)(x[0])
    assert_same_bits((h[None], c[None]), lstm(x[:1])[1])


@pytest.mark.parametrize("activations", ["int8", "int16"])
@pytest.mark.parametrize("qconfig", ["per tensor", "per channel"])
def test_floats_that_were_quantized_are_not_rounded_again(qconfig, activations):
    """-128 included; a factor that a row's integers have in common may go over to its scale."""
    quantized = quantize(Case(31, 40, 2, bidirectional=True).lstm(), qconfig)
    fast = lfk.FastQuantLSTM.from_quantized(quantized)
    again = lfk.FastQuantLSTM.from_float(fast.dequantize(), activations=activations)
    for name in fast.precision:
        own, other = getattr(fast, name), getattr(again, name)
        weights = (
            q * getattr(m, f"{name}_scale")[:, None] for q, m in ((own, fast), (other, again))
        )
        assert torch.equal(*weights), name
        prime = torch.tensor([math.gcd(*row) == 1 for row in own.tolist()])
        assert prime.sum() > 100
        assert torch.equal(other[prime], own[prime]), name


def test_options():
    lstm = Case(33, 40).lstm()
    prune_blocks_(lstm.weight_hh_l0.data, "weight_hh_l0", 0.3, torch.Generator().manual_seed(0))
    quantized = quantize(lstm)
    fast = lfk.FastQuantLSTM.from_quantized(quantized, activations="mixed", block_size=(16, 8))
    assert fast.activations == "mixed"
    assert list(fast.layouts().values())[1].startswith("16x8 blocks")
    check_tensors(lfk.FastQuantLSTM.from_quantized(quantized, layout="dense"), quantized)
    assert torch.equal(
        fast.dequantize().weight_hh_l0, quantized.get_weight()["weight_hh_l0"].dequantize()
    )


def test_hooks_and_mode_go_over():
    quantized, calls = quantize(nn.LSTM(3, 5)), []
    quantized.register_forward_hook(lambda *_: calls.append("called"))
    fast = lfk.FastQuantLSTM.from_quantized(quantized.train())
    fast(torch.randn(2, 1, 3))
    assert calls == ["called"]
    assert fast.training


BAD = {
    "float16": (lambda: quantize(nn.LSTM(3, 5), "float16"), ["weight_ih_l0", "int8", "from_float"]),
    "zero point": (lambda: with_zero_point(torch.tensor([3])), ["weight_hh_l0", "zero points"]),
    "zero points": (
        lambda: with_zero_point(torch.arange(20) % 2),
        ["weight_hh_l0", "zero points", "symmetric"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_has_no_int8_weights_of_ours(name):
    make, words = BAD[name]
    with pytest.raises(ValueError, match=r"from_float") as error:
        lfk.FastQuantLSTM.from_quantized(make())
    assert all(word in str(error.value) for word in words)


def test_a_float16_cell():
    with pytest.raises(ValueError, match=r"^weight_ih: .* from_float"):
        lfk.FastQuantLSTMCell.from_quantized(quantize(nn.LSTMCell(3, 5), "float16"))


def test_matrices_stay_int8():
    with pytest.raises(ValueError, match=r"weight_hh_l0 .* \['int8', 'int16'\], got 'float32'"):
        lfk.FastQuantLSTM.from_quantized(quantize(nn.LSTM(3, 5)), precision={"*hh*": "float32"})


@pytest.mark.parametrize(
    ("fast", "module"),
    [
        (lfk.FastQuantLSTM, nn.LSTM(3, 5)),
        (lfk.FastQuantLSTM, quantize(nn.LSTMCell(3, 5))),
        (lfk.FastQuantLSTMCell, quantize(nn.LSTM(3, 5))),
        (lfk.FastQuantLSTM, torch.ao.nn.quantizable.LSTM(3, 5)),
        (lfk.FastQuantLSTM, type("Own", (type(quantize(nn.LSTM(3, 5))),), {})(3, 5)),
    ],
    ids=["float", "cell", "lstm", "quantizable", "subclass"],
)
def test_other_classes(fast, module):
    name = fast.__name__.removeprefix("FastQuant")
    message = rf"{fast.__name__}.from_quantized expects a torch.ao.nn.quantized.dynamic.{name}, got"
    with pytest.raises(TypeError, match=message):
        fast.from_quantized(module)


def test_what_runs_something_else_is_refused():
    quantized = quantize(nn.LSTM(3, 5))
    quantized.forward = lambda x: x
    with pytest.raises(ValueError, match="its forward is not that of LSTM"):
        lfk.FastQuantLSTM.from_quantized(quantized)


# ---- tensors that are int8 already ----


@pytest.mark.parametrize("activations", ["int8", "int16", "mixed"])
def test_integers_from_anywhere_are_taken_as_they_are(activations):
    fast = lfk.FastQuantLSTM(9, 31, 2, proj_size=7, activations=activations)
    generator = torch.Generator().manual_seed(0)
    given = {}
    for name, tensor in fast.state_dict().items():
        values = torch.rand(tensor.shape, generator=generator) / 64
        if tensor.dtype == torch.int8:
            values = torch.randint(-128, 128, tensor.shape, generator=generator).char()
            values[0] = -128
        given[name] = values
    fast.load_state_dict(given)
    for name, tensor in fast.state_dict().items():
        assert torch.equal(tensor, given[name]), name
    case = Case(9, 31, 2, proj_size=7)
    assert_by_contract(fast, case.x(), case.state())
