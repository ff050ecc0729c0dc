"""Block-sparse matrices: bit for bit what dense ones give, how they are stored, and who is one."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lstm_fastkernels as lfk
from cases import AWKWARD, Case, assert_same, prune_blocks_, to_float
from isas import everywhere
from lstm_fastkernels.compression.pruning import patterns
from lstm_fastkernels.weights.structures import split_gates

ARITHMETICS = ["int8", "int16", "float32"]
BLOCK_SIZES = [(8, 4), (16, 32), (24, 8), (8, 64)]
PARTS = ["_values", "_crow_indices", "_col_indices"]


@pytest.fixture(params=ARITHMETICS)
def arithmetic(request):
    return request.param


# Outputs


def check(case, block_sizes=BLOCK_SIZES):
    x, state = case.x(), case.state()
    dense = replace(case, layout="dense").fast()
    expected = everywhere(dense)(x, state)
    for block_size in block_sizes:
        fast = case.new(layout="block_sparse", block_size=block_size, device="meta")
        fast.load_state_dict(dense.state_dict())
        assert "dense" not in fast.layouts().values()
        assert_same(everywhere(fast)(x, state), expected, f"{case} in {block_size}")


@pytest.mark.parametrize("hidden_size", AWKWARD)
def test_outputs_at_awkward_sizes(hidden_size, arithmetic):
    for n, input_size in enumerate(AWKWARD):
        density = [0.5, 0.2, 0.8][n % 3]
        case = Case(input_size, hidden_size, T=2, density=density, activations=arithmetic)
        check(replace(case, proj_size=n % 2 * (hidden_size // 2)))


@pytest.mark.parametrize("pruned", ["weight", "weight_ih", "weight_hh", "weight_hr"])
@pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
def test_outputs_at_all_densities(density, pruned, arithmetic):
    """From matrices of zeros over empty block rows to full matrices."""
    case = Case(33, 40, 2, True, 20, density=density, pruned=pruned, activations=arithmetic)
    check(case)


def test_outputs_with_empty_block_rows(arithmetic):
    case = Case(33, 40, layout="block_sparse", activations=arithmetic)
    state = case.lstm().state_dict()
    for name in ("weight_ih_l0", "weight_hh_l0"):
        state[name].unflatten(0, (4, 40))[:, 8:24] = 0
    outputs = []
    for layout in ("dense", "block_sparse"):
        fast = case.new(layout=layout)
        fast.load_state_dict(state)
        outputs.append(everywhere(fast)(case.x(), case.state()))
    assert fast.weight_hh_l0_crow_indices.diff().tolist() == [10, 0, 0, 10, 10] * 4
    assert_same(*outputs)


@st.composite
def cases(draw):
    hidden_size = draw(st.integers(1, 70))
    return Case(
        input_size=draw(st.integers(1, 70)),
        hidden_size=hidden_size,
        num_layers=draw(st.integers(1, 2)),
        bidirectional=draw(st.booleans()),
        proj_size=draw(st.integers(0, hidden_size - 1)),
        T=draw(st.integers(1, 4)),
        B=draw(st.integers(1, 9)),
        seed=draw(st.integers(0, 999)),
        activations=draw(st.sampled_from(ARITHMETICS)),
        density=draw(st.floats(0, 1)),
        pruned=draw(st.sampled_from(["weight", "weight_ih", "weight_hh"])),
    )


@given(case=cases(), rows=st.integers(1, 6), columns=st.integers(1, 12))
@settings(max_examples=60)
def test_outputs_of_any(case, rows, columns):
    check(case, [(8, 4), (8 * rows, 4 * columns)])


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_cells(block_size, arithmetic):
    case = Case(33, 40, T=1, density=0.3, activations=arithmetic, block_size=block_size)
    x, state = case.x()[0], tuple(s[0] for s in case.state())
    outputs = [
        everywhere(replace(case, layout=layout).fast_cell())(x, state)
        for layout in ("dense", "block_sparse")
    ]
    for dense, sparse in zip(*outputs, strict=True):
        assert torch.equal(dense, sparse)


# Tensors


@pytest.mark.filterwarnings("ignore:Sparse BSR tensor support is in beta")
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("density", [0.0, 0.4, 1.0])
def test_blocks_are_those_of_torch(density, block_size, arithmetic):
    """Each gate padded to whole blocks; only blocks that are not zero, in torch's BSR."""
    case = Case(9, 31, proj_size=13, density=density, activations=arithmetic)
    dense = replace(case, layout="dense").fast().state_dict()
    state = replace(case, layout="block_sparse", block_size=block_size).fast().state_dict()
    height, width = block_size
    for name in ("weight_ih_l0", "weight_hh_l0", "weight_hr_l0"):
        values, crow_indices, col_indices = (state.pop(name + part) for part in PARTS)
        matrix = dense.pop(name)
        assert values.dtype == matrix.dtype
        assert crow_indices.dtype == col_indices.dtype == torch.int32
        assert values.shape == (len(col_indices), height, width)
        assert values.ne(0).flatten(1).any(1).all()
        gates = matrix.unflatten(0, (1 if name == "weight_hr_l0" else 4, -1))
        rows, columns = gates.shape[1:]
        size = -(-rows // height) * height * len(gates), -(-columns // width) * width
        bsr = torch.sparse_bsr_tensor(
            crow_indices, col_indices, values.float(), size, check_invariants=True
        )
        padded = bsr.to_dense().unflatten(0, (len(gates), -1))
        assert torch.equal(padded[:, :rows, :columns], gates.float())
        assert not padded[:, rows:].any()
        assert not padded[:, :, columns:].any()
    assert state.keys() == dense.keys(), "scales and bias are the same in both"
    assert all(torch.equal(state[name], dense[name]) for name in dense)


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_the_way_back(block_size, arithmetic):
    case = Case(9, 31, 2, proj_size=13, density=0.4, activations=arithmetic)
    sparse = replace(case, layout="block_sparse", block_size=block_size)
    expected = to_float(replace(case, layout="dense").fast()).state_dict()
    for name, tensor in to_float(sparse.fast()).state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_to_dense_is_exact():
    lstm = Case(9, 31, 2, proj_size=13).lstm()
    back = lfk.FastSparseLSTM.from_float(lstm.train()).to_dense()
    assert type(back) is nn.LSTM
    assert back.training
    for name, parameter in back.named_parameters():
        if name.startswith("weight"):
            assert torch.equal(parameter, getattr(lstm, name)), name
    cell = nn.LSTMCell(9, 31)
    cell_back = lfk.FastSparseLSTMCell.from_float(cell).to_dense()
    assert type(cell_back) is nn.LSTMCell
    assert torch.equal(cell_back.weight_hh, cell.weight_hh)


@pytest.mark.parametrize("way", ["from_float", "load_state_dict"])
def test_float32_weights_are_copies(way):
    lstm = Case().lstm()
    fast = lfk.FastSparseLSTM.from_float(lstm)
    if way == "load_state_dict":
        fast.load_state_dict(lstm.state_dict())
    before = fast.weight_ih_l0.clone()
    lstm.weight_ih_l0.data.zero_()
    assert torch.equal(fast.weight_ih_l0, before)


def test_negative_zeros_are_skipped():
    """Multiplying by a mask leaves them."""
    case = Case(64, 64, activations="float32")
    lstm = case.lstm()
    mask = torch.ones(256, 64)
    prune_blocks_(mask, "weight_hh_l0", 0.2)
    lstm.weight_hh_l0.data *= mask
    assert (lstm.weight_hh_l0.signbit() & (mask == 0)).any()
    fast = lfk.FastSparseLSTM.from_float(lstm, **case.options())
    assert fast.packed_bytes() < 0.8 * case.fast().packed_bytes()


@pytest.mark.parametrize("layout", ["auto", "dense", "block_sparse"])
@pytest.mark.parametrize("stored", ["dense", "block_sparse"])
def test_loading_another_layout(stored, layout, arithmetic):
    """ "auto" takes matrices as they come, whatever it would choose itself."""
    case = Case(33, 40, 2, density=0.95, activations=arithmetic, block_size=(16, 8))
    saved = replace(case, layout=stored).fast()
    fast = case.new(layout=layout, block_size=(24, 4))
    fast.load_state_dict(saved.state_dict())
    found = fast.layouts()
    assert len(found) == 4
    size = "16x8" if layout == "auto" else "24x4"
    for text in found.values():
        in_blocks = (stored if layout == "auto" else layout) == "block_sparse"
        assert text.startswith(f"{size} blocks" if in_blocks else "dense")
    assert_same(everywhere(fast)(case.x()), everywhere(saved)(case.x()))


def test_loading_leaves_no_tensor_of_the_layout_before():
    case = Case(density=0.4)
    dense, sparse = (replace(case, layout=layout) for layout in ("dense", "block_sparse"))
    for first, second in ((dense, sparse), (sparse, dense)):
        fast = case.new(layout=first.layout)
        fast.layout = "auto"
        fast.load_state_dict(second.fast().state_dict())
        assert list(fast.state_dict()) == list(second.fast().state_dict())


# The choice


@pytest.mark.parametrize(
    ("arithmetic", "most"), [("int8", 0.55), ("int16", 0.55), ("float32", 0.7)], ids=str
)
@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l0", "weight_hr_l0"])
def test_auto_chooses_by_density_for_each_matrix(name, arithmetic, most):
    case = Case(20, 40, proj_size=20, activations=arithmetic)
    state, fast = case.lstm().state_dict(), case.new()
    gates = split_gates(state[name], name)
    grid = len(gates), -(-gates.shape[1] // 8), gates.shape[2] // 4
    blocks = math.prod(grid)
    for kept in (int(most * blocks), int(most * blocks) + 1):
        mask = (torch.arange(blocks) < kept).view(grid)
        mask = patterns.spread_blocks(mask, (8, 4), *gates.shape[1:]).flatten(0, 1)
        fast.load_state_dict({**state, name: state[name] * mask})
        found = fast.layouts()
        in_blocks = kept / blocks <= most
        assert found.pop(name) == (f"8x4 blocks, {kept / blocks:.1%}" if in_blocks else "dense")
        assert set(found.values()) == {"dense"}


def test_repr_says_how_each_matrix_is_stored(arithmetic):
    case = Case(8, 8, activations=arithmetic)
    assert f"activations={arithmetic}, layout=auto (all dense)" in repr(case.fast())
    state = case.lstm().state_dict()
    state["weight_hh_l0"][8:] = 0
    for fast, loaded in (
        (case.new(), state),
        (case.new_cell(), {name.removesuffix("_l0"): t for name, t in state.items()}),
    ):
        fast.load_state_dict(loaded)
        how = "(weight_ih_l0: dense, weight_hh_l0: 8x4 blocks, 25.0%)"
        assert f"activations={arithmetic}, layout=auto {how}" in repr(fast)
        assert fast.layouts() == {"weight_ih_l0": "dense", "weight_hh_l0": "8x4 blocks, 25.0%"}


def test_packed_bytes_follow_the_density(arithmetic):
    full = Case(256, 256, activations=arithmetic, layout="dense")
    sparse = replace(full, density=0.1, layout="block_sparse")
    assert sparse.fast().packed_bytes() < 0.2 * full.fast().packed_bytes()


@pytest.mark.parametrize("fast", [lfk.FastQuantLSTM, lfk.FastSparseLSTMCell])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layout": "sparse"}, ["layout", "'sparse'", "block_sparse"]),
        ({"layout": None}, ["layout", "None"]),
        ({"block_size": (4, 4)}, ["block_size", "8 rows", "(4, 4)"]),
        ({"block_size": (8, 6)}, ["block_size", "4 columns", "(8, 6)"]),
        ({"block_size": (0, 4)}, ["block_size", "(0, 4)"]),
        ({"block_size": (8, -4)}, ["block_size", "(8, -4)"]),
    ],
    ids=str,
)
def test_bad_options(fast, options, words):
    with pytest.raises(ValueError, match="must be") as error:
        fast(5, 4, **options)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    ("fast", "activations", "possible"),
    [
        (lfk.FastQuantLSTM, "float32", "['int8', 'int16', 'mixed', 'int4']"),
        (lfk.FastQuantLSTMCell, "float32", "['int8', 'int16', 'mixed', 'int4']"),
        (lfk.FastSparseLSTM, "int8", "['float32']"),
        (lfk.FastSparseLSTMCell, "int16", "['float32']"),
    ],
)
def test_activations_of_another_class(fast, activations, possible):
    with pytest.raises(ValueError, match="activations") as error:
        fast(5, 4, activations=activations)
    assert possible in str(error.value)
    assert activations in str(error.value)
