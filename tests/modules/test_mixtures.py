"""Modules whose matrices have different precisions."""

import copy
import io
import pickle
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lstm_fastkernels as lfk
from calls import cases
from cases import AWKWARD, Case, assert_by_contract, assert_same, drawn
from io_cases import same_tensors
from isas import assert_same_bits, everywhere

PRECISIONS = ["int8", "int16", "float32"]
MIXTURE = (("weight_ih_l0", "int16"), ("weight_hh_l1*", "float32"), ("weight_hr_l1*", "int16"))
CASE = Case(9, 31, 2, bidirectional=True, proj_size=13, precision=MIXTURE)
LAYOUTS = [{}, {"layout": "dense"}, {"layout": "block_sparse", "density": 0.4}]


@st.composite
def mixtures(draw):
    layout = {"layout": "auto", "density": 1.0} | draw(
        st.sampled_from([*LAYOUTS, {"density": 0.4}])
    )
    case = replace(draw(cases()), activations="int8", **layout)
    names = case.new(device="meta").precision
    chosen = draw(st.lists(st.sampled_from(PRECISIONS), min_size=len(names), max_size=len(names)))
    return replace(case, precision=tuple(zip(names, chosen, strict=True)))


@given(case=mixtures(), dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))
@settings(max_examples=40)
def test_any(case, dtype):
    x, fast = case.x().to(dtype), drawn(case, largest=127)
    assert dict(fast.precision) == dict(case.precision)
    assert_by_contract(fast, x, case.state(), case.lengths(), f"{case} {dtype}")


@pytest.mark.parametrize("rest", PRECISIONS)
@pytest.mark.parametrize("own", PRECISIONS)
@pytest.mark.parametrize("kind", ["ih", "hh", "hr"])
def test_each_kind_of_matrix(kind, own, rest):
    """At awkward sizes, in every layout, over several layers and directions."""
    precision = ((f"weight_{kind}*", own), ("*", rest))
    for n, layout in enumerate(LAYOUTS):
        for proj_size in (0, 5) if kind != "hr" else (5,):
            sizes = AWKWARD[n + PRECISIONS.index(own)], AWKWARD[1 + n + PRECISIONS.index(rest)]
            case = Case(*sizes, 2, True, proj_size, T=2, precision=precision, **layout)
            assert_by_contract(drawn(case), case.x(), case.state(), message=str(case))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_batch_chunks_and_padding_change_nothing(layout):
    case = replace(CASE, T=7, B=5, bidirectional=False, **layout)
    fast, x, (h, c) = everywhere(case.fast()), case.x(), case.state()
    whole = fast(x, (h, c))
    first, state = fast(x[:3], (h, c))
    rest, state = fast(x[3:], state)
    assert_same((torch.cat((first, rest)), state), whole)
    row = fast(x[:, 2:3], (h[:, 2:3].contiguous(), c[:, 2:3].contiguous()))
    assert_same_bits(row[0], whole[0][:, 2:3])
    lengths = torch.tensor([7, 1, 4, 7, 2])
    padded = fast(x, (h, c), lengths)
    assert_same_bits(padded[0][:4, 2], whole[0][:4, 2])


def test_cells():
    case = Case(9, 31, precision=(("weight_hh_l0", "float32"),), activations="mixed")
    cell, lstm, x = case.fast_cell(), case.fast(), case.x()
    assert cell.precision == lstm.precision
    state = everywhere(cell)(x[0], tuple(s[0] for s in case.state()))
    expected = lstm(x[:1], case.state())[1]
    assert_same_bits(state, tuple(s[0] for s in expected))


# ---- where the weights come from ----


def test_each_matrix_is_quantized_by_its_precision():
    fast, lstm = CASE.fast(), CASE.lstm()
    whole = {p: replace(CASE, precision=(("*", p),)).fast().state_dict() for p in PRECISIONS}
    for name, tensor in fast.state_dict().items():
        matrix = name.removesuffix("_scale")
        expected = whole[fast.precision.get(matrix, "int8")][name]
        assert tensor.dtype == expected.dtype, name
        assert torch.equal(tensor, expected), name
    assert torch.equal(fast.weight_hh_l1, lstm.weight_hh_l1)
    loaded = CASE.new()
    loaded.load_state_dict(lstm.state_dict())
    same_tensors(loaded.state_dict(), fast.state_dict())


@pytest.mark.parametrize("pair_safe", ["auto", True, False])
def test_pair_safe_is_for_8_bit_activations(pair_safe):
    lstm = nn.LSTM(64, 32, 2)
    for name in ("weight_hh_l0", "weight_hh_l1"):  # neighbours that add up to more than 128 steps
        getattr(lstm, name).data.mul_(0.1)[:, :2] += 1
    fast = lfk.FastQuantLSTM.from_float(
        lstm, pair_safe=pair_safe, precision={"weight_hh_l1": "int16"}
    )
    for name, expected in (("weight_hh_l0", pair_safe), ("weight_hh_l1", False)):
        integers, scale = lfk.quantize_rows(getattr(lstm, name), pair_safe=expected)
        assert torch.equal(getattr(fast, name), integers)
        assert torch.equal(getattr(fast, f"{name}_scale"), scale)
    pairs = fast.weight_hh_l0.int().unflatten(1, (-1, 2)).sum(2)
    assert pair_safe == "auto" or (pairs.abs().max() <= 128) == pair_safe


def test_random_weights_are_as_their_matrices_are_stored():
    fast = CASE.new()
    dtypes = {"int8": torch.int8, "int16": torch.int8, "float32": torch.float32}
    for name, precision in fast.precision.items():
        assert fast.state_dict()[name].dtype == dtypes[precision]
        assert (f"{name}_scale" in fast.state_dict()) == (precision != "float32")
        assert fast.state_dict()[name].any()


def test_dequantized_and_compressed_again():
    fast = CASE.fast()
    again = lfk.FastQuantLSTM.from_float(fast.dequantize(), precision=fast.precision)
    assert again.precision == fast.precision
    same_tensors(again.dequantize().state_dict(), fast.dequantize().state_dict())


@pytest.mark.parametrize("bias", [True, False])
def test_checkpoints_of_another_precision(bias):
    """Refused by the name of the tensor, with what would take it; nothing changes."""
    case = replace(CASE, bias=bias)
    ints = replace(case, precision=()).fast()
    mixed, sparse = case.fast(), replace(case, density=0.4, layout="block_sparse").fast()
    for module, other, wrong in (
        (ints, mixed, "weight_hh_l1"),
        (mixed, ints, "weight_hh_l1"),
        (ints, sparse, "weight_hh_l1_values"),
        (sparse, ints, "weight_hh_l1"),
    ):
        before = copy.deepcopy(module.state_dict())
        with pytest.raises(RuntimeError) as error:
            nn.ModuleDict({"rnn": module}).load_state_dict(
                {f"rnn.{name}": tensor for name, tensor in other.state_dict().items()}
            )
        precision = other.precision["weight_hh_l1"]
        assert f"rnn.{wrong} of the compressed LSTM checkpoint" in str(error.value)
        assert f"precision={{'weight_hh_l1': '{precision}'}}" in str(error.value)
        assert "weight_hh_l1_scale" not in str(error.value)
        same_tensors(module.state_dict(), before)
        fitting = case.new(precision=other.precision)
        fitting.load_state_dict(other.state_dict())
        same_tensors(fitting.state_dict(), other.state_dict())


def test_16_bit_activations_are_the_modules_own():
    """int8 weights fit a matrix whatever its activations are."""
    mixed, plain = replace(CASE, precision=(), activations="mixed"), replace(CASE, precision=())
    fast = mixed.new()
    fast.load_state_dict(plain.fast().state_dict())
    same_tensors(fast.state_dict(), plain.fast().state_dict())
    assert_by_contract(fast, CASE.x())


# ---- what people do with modules ----


def through_a_file(fast, path):
    lfk.save_file(fast, path)
    return lfk.load_file(path)


def pickled(fast, path):
    return pickle.loads(pickle.dumps(fast))


def copied(fast, path):
    return copy.deepcopy(fast)


def on_meta_and_back(fast, path):
    made = type(fast)(9, 31, 2, bidirectional=True, proj_size=13, device="meta", **options(fast))
    made.load_state_dict(fast.state_dict(), assign=True)
    return made


def options(fast):
    return {"precision": fast.precision, "pair_safe": fast.pair_safe}


@pytest.mark.parametrize("travel", [through_a_file, pickled, copied, on_meta_and_back])
@pytest.mark.parametrize("pair_safe", ["auto", True, False])
def test_options_and_outputs_stay(travel, pair_safe, path):
    fast = CASE.new(pair_safe=pair_safe)
    other = travel(fast, path)
    assert repr(other) == repr(fast)
    assert options(other) == options(fast)
    assert type(other.pair_safe) is type(pair_safe)
    same_tensors(other.state_dict(), fast.state_dict())
    assert_same(everywhere(other)(CASE.x(), CASE.state()), fast(CASE.x(), CASE.state()))
    for module in (fast, other):
        module.load_state_dict(CASE.lstm().state_dict())
    same_tensors(other.state_dict(), fast.state_dict())


def test_the_precision_is_fixed():
    fast = CASE.new()
    with pytest.raises(TypeError):
        fast.precision["weight_ih_l0"] = "int8"
    for name in ("precision", "activations", "pair_safe"):
        with pytest.raises(AttributeError):
            setattr(fast, name, "int8")


def test_repr_and_explain_say_where_matrices_differ():
    fast = Case(9, 31, 2, precision=(("weight_hh_l1", "float32"),), activations="mixed").fast()
    assert (
        "activations=custom (weight_ih_l0: int16, weight_hh_l1: float32, all else int8), "
        "layout=auto (all dense)" in repr(fast)
    )
    assert "pair_safe=False" in repr(lfk.FastQuantLSTM(5, 4, pair_safe=False))
    assert "activations=mixed (weight_ih_l0: int16" in repr(
        lfk.FastQuantLSTM(5, 4, activations="mixed")
    )
    lines = lfk.explain(fast).splitlines()[-4:]
    products = [line.rpartition("; ")[2] for line in lines]
    assert products[0] == "16-bit activations"
    assert products[1].startswith(products[2].split(",")[0])
    assert products[3].startswith("float32")


def test_converted_models():
    lstms = nn.ModuleList([nn.LSTM(9, 31, 2), nn.LSTMCell(9, 31)])
    fast = lfk.convert(lstms, activations="mixed", precision={"weight_hh*": "float32"})
    for module in fast:
        assert module.precision["weight_ih_l0"] == "int16"
        assert module.precision["weight_hh_l0"] == "float32"
    with pytest.raises(ValueError, match=r"1: precision has 'weight_hh_l1'"):
        lfk.convert(lstms, precision={"weight_hh_l1": "float32"})


def test_tracers_and_autocast():
    fast, x = CASE.fast(), CASE.x()
    expected = fast(x)
    with torch.no_grad():
        torch.compiler.reset()
        compiled = torch.compile(fast, fullgraph=True, backend="aot_eager")
        assert_same(everywhere(compiled)(x), expected)
        torch.compiler.reset()
        program = torch.export.export(fast, (x,))
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
        buffer.seek(0)
        assert_same(torch.export.load(buffer).module()(x), expected)
        traced = torch.fx.symbolic_trace(nn.Sequential(fast))
        assert_same(traced(x), expected)
        with torch.autocast("cpu", torch.bfloat16):
            assert_same(fast(x), fast(x.bfloat16()))


def test_other_float_types_leave_float32_matrices():
    fast = CASE.fast()
    expected = fast(CASE.x().half())
    assert fast.half().weight_hh_l1.dtype == torch.float32
    assert_same(fast(CASE.x().half()), expected)
