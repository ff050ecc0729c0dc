"""Bad input raises what nn.LSTM raises for the same mistake and says what was expected and what
came; nothing crashes, and a failed load changes nothing."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import lstm_fastkernels as lfk
from cases import Case, assert_same

CASE = Case(5, 4, 2, T=3, B=2)
X = CASE.x()
H, C = CASE.state()
zeros = torch.zeros


# Where nn.LSTM has no such mistake.
REFUSED = (RuntimeError, ValueError)


def error_of(call):
    try:
        call()
    except Exception as error:
        return error
    return pytest.fail("nothing was raised")


def check(error, kind, *words):
    assert isinstance(error, kind), f"not {kind}: {error!r}"
    for word in words:
        assert word.lower() in str(error).lower(), f"{word!r} is not in: {error}"


# name: the arguments of the call and what its message names: what was expected, what came
BAD_CALLS = {
    "feature size": ((zeros(3, 2, 6),), "5", "6"),
    "feature size unbatched": ((zeros(3, 6),), "5", "6"),
    "1-D input": ((zeros(5),), "2D or 3D", "1D"),
    "4-D input": ((zeros(1, 3, 2, 5),), "2D or 3D", "4D"),
    "float64": ((X.double(),), "float64", ".float()"),
    "integers": ((X.long(),), "int64", "float32"),
    "another device": ((X.to("meta"),), "meta", "cpu"),
    "no time steps": ((X[:0],), "sequence length"),
    "no time steps unbatched": ((X[:0, 0],), "sequence length"),
    "h0 batch": ((X, (zeros(2, 3, 4), C)), "hidden[0]", "(2, 2, 4)", "2, 3, 4"),
    "c0 batch": ((X, (H, zeros(2, 3, 4))), "hidden[1]", "(2, 2, 4)", "2, 3, 4"),
    "h0 layers": ((X, (zeros(1, 2, 4), C)), "hidden[0]", "(2, 2, 4)", "1, 2, 4"),
    "h0 size": ((X, (zeros(2, 2, 7), C)), "hidden[0]", "(2, 2, 4)", "2, 2, 7"),
    "2-D state": ((X, (H[:, 0], C[:, 0])), "3-D", "2-D"),
    "3-D state unbatched": ((X[:, 0], (H, C)), "2-D", "3-D"),
    "three states": ((X, (H, C, C)), "two"),
    "one tensor as state": ((X, H[0]), ""),
    "float64 state": ((X, (H.double(), C.double())), "float64"),
    "float64 c0": ((X, (H, C.double())), "float64"),
    "state elsewhere": ((X, (H.to("meta"), C.to("meta"))), "meta", "cpu"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_calls_raise_as_in_nn_lstm(name):
    arguments, *words = BAD_CALLS[name]
    expected = error_of(lambda: CASE.lstm()(*arguments))
    check(error_of(lambda: CASE.fast()(*arguments)), type(expected), *words)


def test_one_state_of_two():
    """nn.LSTM stumbles over the tuple's length here; this is the error it has for three."""
    check(error_of(lambda: CASE.fast()(X, (H,))), RuntimeError, "two")


@pytest.mark.parametrize(
    "packed",
    [
        pack_padded_sequence(zeros(3, 2, 6), [3, 2]),
        PackedSequence(zeros(5, 5), torch.tensor([2, 2])),
        PackedSequence(zeros(5, 5), torch.tensor([2, 4, -1])),
        PackedSequence(zeros(5, 5), torch.tensor([0, 5])),
    ],
    ids=["feature size", "too much data", "negative batch size", "no rows at first"],
)
def test_bad_packed_sequences(packed):
    check(error_of(lambda: CASE.fast()(packed)), REFUSED)


def test_state_does_not_fit_the_packed_sequence():
    packed = pack_padded_sequence(X, [3, 2])
    state = zeros(2, 3, 4), zeros(2, 3, 4)
    assert isinstance(error_of(lambda: CASE.lstm()(packed, state)), RuntimeError)
    check(error_of(lambda: CASE.fast()(packed, state)), RuntimeError, "(2, 2, 4)", "2, 3, 4")


@pytest.mark.parametrize(
    ("lengths", "words"),
    [
        (torch.tensor([3, 4]), ["4", "3"]),
        (torch.tensor([3, 0]), ["0"]),
        (torch.tensor([3, -1]), ["-1"]),
        (torch.tensor([3]), ["2", "1"]),
        (torch.tensor([3, 2, 1]), ["2", "3"]),
        (torch.tensor([[3, 2]]), []),
        (torch.tensor([3.0, 2.0]), ["int64", "float32"]),
        (torch.tensor([3, 2], dtype=torch.int32), ["int64", "int32"]),
        (torch.tensor([3, 2], device="meta"), ["meta", "cpu"]),
    ],
    ids=["too long", "zero", "negative", "too few", "too many", "2-D", "float", "int32", "meta"],
)
def test_bad_lengths(lengths, words):
    check(error_of(lambda: CASE.fast()(X, lengths=lengths)), REFUSED, "lengths", *words)


CELL = nn.LSTMCell(5, 4)
BAD_CELL_CALLS = {
    "feature size": ((zeros(2, 6),), "5", "6"),
    "3-D input": ((zeros(1, 2, 5),), "1D or 2D", "3D"),
    "0-D input": ((zeros(()),), "1D or 2D", "0D"),
    "float64": ((zeros(2, 5).double(),), "float64", ".float()"),
    "h0 batch": ((zeros(2, 5), (zeros(3, 4), zeros(3, 4))), "2", "3"),
    "h0 size": ((zeros(2, 5), (zeros(2, 7), zeros(2, 7))), "4", "7"),
    "one state": ((zeros(2, 5), (zeros(2, 4),)), "two"),
}


@pytest.mark.parametrize("name", BAD_CELL_CALLS)
def test_bad_cell_calls_raise(name):
    arguments, *words = BAD_CELL_CALLS[name]
    expected = error_of(lambda: CELL(*arguments))
    # For float64, nn.LSTMCell has no check of its own, only what its matrix product says.
    kind = ValueError if name == "float64" else type(expected)
    fast = lfk.FastQuantLSTMCell.from_float(CELL)
    check(error_of(lambda: fast(*arguments)), kind, *words)


@pytest.mark.parametrize(
    "options",
    [
        {"input_size": 0},
        {"hidden_size": 0},
        {"hidden_size": "4"},
        {"num_layers": 0},
        {"proj_size": 4},
        {"proj_size": -1},
        {"dropout": 2.0},
    ],
    ids=str,
)
def test_bad_constructions_raise_as_in_nn_lstm(options):
    options = {"input_size": 5, "hidden_size": 4, **options}
    expected = error_of(lambda: nn.LSTM(**options))
    check(error_of(lambda: lfk.FastQuantLSTM(**options)), type(expected))


def test_sizes_beyond_exact_sums():
    check(error_of(lambda: lfk.FastQuantLSTM(65536, 1)), REFUSED, "65535", "65536")


def test_unknown_activations():
    error = error_of(lambda: lfk.FastQuantLSTM(5, 4, activations="int4"))
    check(error, ValueError, "int4", "int8", "int16")


# Backward


@pytest.mark.parametrize("which", ["x", "h0", "c0"])
def test_backward_says_what_to_use_instead(which, kind):
    tensors = {"x": X.clone(), "h0": H.clone(), "c0": C.clone()}
    tensors[which].requires_grad_()
    x, *state = tensors.values()
    y, _ = replace(CASE, **kind).fast()(x, tuple(state))
    error = error_of(lambda: y.sum().backward())
    check(error, RuntimeError, "dequantize", "to_dense")  # NotImplementedError is a RuntimeError


def test_forward_ignores_grad_mode(kind, isa):
    fast = replace(CASE, **kind).fast()
    with torch.no_grad():
        expected = fast(X)
    y, state = fast(X.clone().requires_grad_())
    assert_same((y.detach(), tuple(s.detach() for s in state)), expected)


# Checkpoints


def float_state():
    return CASE.lstm().state_dict()


def quantized_state():
    return copy.deepcopy(CASE.fast().state_dict())


def changed(state, key, value):
    """The state with one tensor replaced, or without it."""
    state = dict(state)
    del state[key]
    return state if value is None else {**state, key: value}


def with_element(tensor, value):
    tensor = tensor.clone()
    tensor.view(-1)[1] = value
    return tensor


NAN, INF = float("nan"), float("inf")
BAD_CHECKPOINTS = {
    "float missing": (
        changed(float_state(), "weight_hh_l1", None),
        ["missing", "weight_hh_l1"],
    ),
    "float missing bias": (
        changed(float_state(), "bias_ih_l0", None),
        ["missing", "bias_ih_l0"],
    ),
    "float extra": (
        {**float_state(), "weight_hh_l2": zeros(16, 4)},
        ["unexpected", "weight_hh_l2"],
    ),
    "float misshapen": (
        changed(float_state(), "weight_ih_l0", zeros(16, 6)),
        ["weight_ih_l0", "16, 5", "16, 6"],
    ),
    "float transposed": (
        changed(float_state(), "weight_ih_l0", zeros(5, 16)),
        ["weight_ih_l0", "16, 5", "5, 16"],
    ),
    "float nan": (
        changed(float_state(), "weight_ih_l0", with_element(zeros(16, 5), NAN)),
        ["weight_ih_l0", "finite"],
    ),
    "float inf bias": (
        changed(float_state(), "bias_hh_l1", with_element(zeros(16), INF)),
        ["bias", "finite"],
    ),
    "quantized missing": (
        changed(quantized_state(), "weight_hh_l1", None),
        ["missing", "weight_hh_l1"],
    ),
    "quantized missing scale": (
        changed(quantized_state(), "weight_hh_l1_scale", None),
        ["missing", "weight_hh_l1_scale"],
    ),
    "quantized extra": (
        {**quantized_state(), "weight_hr_l0": zeros(3, 4, dtype=torch.int8)},
        ["unexpected", "weight_hr_l0"],
    ),
    "quantized misshapen": (
        changed(quantized_state(), "weight_hh_l0", zeros(16, 5, dtype=torch.int8)),
        ["weight_hh_l0", "16, 4", "16, 5"],
    ),
    "quantized misshapen scale": (
        changed(quantized_state(), "weight_hh_l0_scale", zeros(15)),
        ["weight_hh_l0_scale", "16", "15"],
    ),
    "quantized nan scale": (
        changed(quantized_state(), "weight_hh_l0_scale", with_element(zeros(16), NAN)),
        ["weight_hh_l0_scale", "finite"],
    ),
    "quantized inf bias": (
        changed(quantized_state(), "bias_l0", with_element(zeros(16), INF)),
        ["bias_l0", "finite"],
    ),
    "quantized -128": (
        changed(
            quantized_state(),
            "weight_hh_l0",
            with_element(zeros(16, 4, dtype=torch.int8), -128),
        ),
        ["weight_hh_l0", "-128"],
    ),
    "float weight with a scale": (
        changed(quantized_state(), "weight_hh_l0", torch.ones(16, 4)),
        ["weight_hh_l0", "int8", "float32"],
    ),
    "int16 weight": (
        changed(quantized_state(), "weight_hh_l0", zeros(16, 4, dtype=torch.int16)),
        ["weight_hh_l0", "int8", "int16"],
    ),
    "float and quantized together": (
        {**float_state(), **quantized_state()},
        ["unexpected"],
    ),
    "empty": ({}, ["missing", "weight_ih_l0"]),
}


@pytest.mark.parametrize("name", BAD_CHECKPOINTS)
def test_bad_checkpoints_are_refused_and_change_nothing(name):
    state, words = BAD_CHECKPOINTS[name]
    fast = Case(5, 4, 2, T=3, B=2, seed=9).fast()
    before, output = copy.deepcopy(fast.state_dict()), fast(X)
    check(error_of(lambda: fast.load_state_dict(state)), RuntimeError, *words)
    for key, tensor in fast.state_dict().items():
        assert torch.equal(tensor, before[key]), f"{key} was changed by the failed load"
    assert_same(fast(X), output)


# In blocks of 8x4 weight_ih has 4 gates of 2 block rows of 3 blocks.
BLOCKS = Case(9, 9, layout="block_sparse", activations="float32")
CROW = torch.arange(9, dtype=torch.int32) * 3
COL = torch.arange(24, dtype=torch.int32) % 3


def in_padding(row, column):
    """Full blocks of weight_ih, with one value in the padding of its sixth."""
    values = BLOCKS.fast().weight_ih_l0_values.clone()
    values[5, row, column] = 1
    return values


# Which part of weight_ih_l0, its value (None: it is missing) and what the message says.
BAD_BLOCKS = {
    "no values": ("values", None, "missing"),
    "no crow_indices": ("crow_indices", None, "missing"),
    "no col_indices": ("col_indices", None, "missing"),
    "starts late": ("crow_indices", CROW.clamp(min=1), "start with 0", "1"),
    "ends early": ("crow_indices", CROW.clamp(max=23), "end with", "24", "23"),
    "goes down": ("crow_indices", with_element(CROW, 9), "decrease", "6", "9"),
    "goes beyond": ("crow_indices", with_element(CROW, 25), "exceed", "24", "25"),
    "negative": ("crow_indices", with_element(CROW, -1), "decrease", "-1"),
    "too few block rows": ("crow_indices", CROW[:-1].clone(), "9", "8"),
    "int64 crow_indices": ("crow_indices", CROW.long(), "int32", "int64"),
    "2-D crow_indices": ("crow_indices", CROW[None], "(1, 9)"),
    "negative column": ("col_indices", with_element(COL, -1), "0..2", "-1", "block 1 of"),
    "column beyond": ("col_indices", with_element(COL, 3), "0..2", "3", "block 1 of"),
    "huge column": ("col_indices", with_element(COL, 2**31 - 1), "0..2", "2147483647"),
    "column twice": ("col_indices", with_element(COL, 0), "increase", "0 after 0"),
    "columns go down": ("col_indices", COL.flip(0), "increase", "1 after 2"),
    "too few columns": ("col_indices", COL[:-1].clone(), "24", "23"),
    "int64 col_indices": ("col_indices", COL.long(), "int32", "int64"),
    "too few blocks": ("values", zeros(23, 8, 4), "col_indices", "23", "24"),
    "2-D values": ("values", zeros(24, 32), "(any, any, any)", "(24, 32)"),
    "no rows": ("values", zeros(24, 0, 4), "1..65535 rows, got 0"),
    "7 rows": ("values", zeros(24, 7, 4), "8 rows", "7 x 4"),
    "6 columns": ("values", zeros(24, 8, 6), "4 columns", "8 x 6"),
    "nan": ("values", with_element(zeros(24, 8, 4), NAN), "finite"),
    "inf": ("values", with_element(zeros(24, 8, 4), INF), "finite"),
    "padding below": ("values", in_padding(1, 0), "zero in the padding", "block 5 of block row 1"),
    "padding beside": ("values", in_padding(0, 3), "zero in the padding"),
    "int8 values": ("values", zeros(24, 8, 4, dtype=torch.int8), "float32", "int8"),
    "float64 values": ("values", zeros(24, 8, 4, dtype=torch.float64), "float32", "float64"),
}


@pytest.mark.parametrize("layout", ["auto", "dense", "block_sparse"])
@pytest.mark.parametrize("name", BAD_BLOCKS)
def test_bad_blocks_are_refused_and_change_nothing(name, layout):
    part, value, *words = BAD_BLOCKS[name]
    state = changed(BLOCKS.fast().state_dict(), f"weight_ih_l0_{part}", value)
    fast = replace(BLOCKS, layout=layout, seed=9).fast()
    model = nn.ModuleDict({"encoder": fast})
    before, output = copy.deepcopy(fast.state_dict()), fast(BLOCKS.x())
    given = {f"encoder.{key}": tensor for key, tensor in state.items()}
    error = error_of(lambda: model.load_state_dict(given))
    check(error, RuntimeError, "encoder", "weight_ih_l0", *words)
    assert list(fast.state_dict()) == list(before)
    for key, tensor in fast.state_dict().items():
        assert torch.equal(tensor, before[key]), f"{key} was changed by the failed load"
    assert_same(fast(BLOCKS.x()), output)


def test_bad_int8_blocks():
    case = replace(BLOCKS, activations="int8")
    state = case.fast().state_dict()
    low = with_element(state["weight_ih_l0_values"], -128)
    for value, word in ((low, "-128"), (zeros(24, 8, 4), "int8")):
        bad = changed(state, "weight_ih_l0_values", value)
        check(
            error_of(lambda bad=bad: case.new().load_state_dict(bad)),
            RuntimeError,
            "weight_ih_l0",
            word,
        )


def test_a_matrix_that_is_there_twice():
    state = {**BLOCKS.fast().state_dict(), "weight_ih_l0": zeros(36, 9)}
    error = error_of(lambda: BLOCKS.new().load_state_dict(state))
    check(error, RuntimeError, "unexpected", '"weight_ih_l0"')


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "nobias"])
def test_checkpoints_of_the_other_class(bias):
    """int8 and float32 tensors are not taken for each other."""
    floats, ints = (replace(BLOCKS, bias=bias, activations=a) for a in ("float32", "int8"))
    for one, other in ((floats, ints), (ints, floats)):
        error = error_of(
            lambda one=one, other=other: one.new().load_state_dict(other.fast().state_dict())
        )
        check(error, RuntimeError, "weight_ih_l0")


def test_strict_false_reports_the_rest():
    result = CASE.fast().load_state_dict({**float_state(), "other": zeros(1)}, strict=False)
    assert result.unexpected_keys == ["other"]
    assert not result.missing_keys


def test_a_quantized_checkpoint_does_not_pass_for_a_float_one():
    """nn.LSTM itself refuses it; dequantize() is the way back."""
    with pytest.raises(RuntimeError, match="bias_ih_l0"):
        CASE.lstm().load_state_dict(quantized_state())


def test_bad_checkpoint_inside_a_model_names_the_path():
    model = nn.Sequential(CASE.fast())
    state = {"0." + key: tensor for key, tensor in float_state().items()}
    state["0.weight_ih_l0"] = zeros(16, 6)
    check(error_of(lambda: model.load_state_dict(state)), RuntimeError, "0.weight_ih_l0", "16, 6")


# The op itself: sizes, packed bytes


def run_op(**changes):
    """Calls the op for CASE with some arguments replaced."""
    arguments = {
        "x": X,
        "h0": H,
        "c0": C,
        "lengths": None,
        "packed": CASE.fast().packed,
        "input_size": 5,
        "hidden_size": 4,
        "proj_size": 0,
        "num_layers": 2,
        "bidirectional": False,
        "batch_first": False,
    }
    y, h, c = torch.ops.lstm_fastkernels.lstm(*{**arguments, **changes}.values())
    return y, (h, c)


def test_op_is_what_the_module_runs(isa):
    assert_same(run_op(), CASE.fast()(X, (H, C)))


def test_packed_bytes_may_lie_at_any_address(isa):
    packed = CASE.fast().packed
    for offset in (1, 3, 8, 33):
        moved = torch.cat((packed.new_zeros(offset), packed))[offset:]
        assert_same(run_op(packed=moved), run_op(), f"offset {offset}")


@pytest.mark.parametrize("keep", [0, 1, 10, 63, 64, 65, 100, 200, -64, -1])
def test_truncated_packed_bytes(keep, isa):
    check(error_of(lambda: run_op(packed=CASE.fast().packed[:keep])), REFUSED)


def test_packed_bytes_with_a_tail(isa):
    packed = CASE.fast().packed
    check(error_of(lambda: run_op(packed=torch.cat((packed, packed[:64])))), REFUSED)


@pytest.mark.parametrize("value", [0, 0x7F, 0x80, 0xFF])
def test_lying_headers(value, isa):
    """Whatever stands in a header or record, a call is refused or harmless."""
    packed, expected = CASE.fast().packed, run_op()
    refused = 0
    for offset in range(0, 256, 4):
        lying = packed.clone()
        lying[offset : offset + 4] = value
        if torch.equal(lying, packed):
            continue
        try:
            run_op(packed=lying)
        except REFUSED:
            refused += 1
    assert refused >= 5, "magic, version and sizes are checked"
    assert_same(run_op(), expected)


@pytest.mark.parametrize(
    "packed",
    [
        zeros(4096),
        zeros(4096, dtype=torch.uint8),
        zeros(64, 64, dtype=torch.uint8),
        zeros(4096, dtype=torch.uint8, device="meta"),
    ],
    ids=["float", "zeros", "2-D", "meta"],
)
def test_packed_bytes_that_are_none(packed):
    check(error_of(lambda: run_op(packed=packed)), REFUSED)


@pytest.mark.parametrize(
    "change",
    [
        {"input_size": 6, "x": zeros(3, 2, 6)},
        {"hidden_size": 5, "h0": zeros(2, 2, 5), "c0": zeros(2, 2, 5)},
        {"hidden_size": -4},
        {"hidden_size": 2**40},
        {"proj_size": 2, "h0": zeros(2, 2, 2)},
        {"proj_size": 4},
        {"num_layers": 1, "h0": H[:1], "c0": C[:1]},
        {"num_layers": 0},
        {"num_layers": 2**40},
        {"num_layers": 1, "bidirectional": True},
        {"x": zeros(3, 2, 6)},
        {"x": zeros(3, 2, 5, dtype=torch.float64)},
        {"x": zeros(3, 2, 5, device="meta")},
        {"h0": zeros(2, 3, 4)},
        {"h0": None},
        {"c0": zeros(2, 2, 4, dtype=torch.float64)},
        {"head": [1, 2]},
        {"lengths": torch.tensor([3, 4])},
        {"lengths": torch.tensor([3])},
        {"lengths": torch.tensor([3, 2], dtype=torch.int32)},
        {"x": zeros(5, 5), "lengths": torch.tensor([1, 2, 2])},
        {"x": zeros(5, 5), "lengths": torch.tensor([2, 2])},
        {"x": zeros(5, 5), "lengths": torch.tensor([2, 2, 1, 0])},
        {"x": zeros(5, 5), "lengths": torch.tensor([2**62, 2**62, 5 - 2**63])},
    ],
    ids=lambda change: "-".join(
        f"{name}{list(v.shape) if isinstance(v, torch.Tensor) else v}" for name, v in change.items()
    ),
)
def test_op_arguments_are_checked(change, isa):
    check(error_of(lambda: run_op(**change)), REFUSED)
