"""LSTMs that take token ids: their first layer's input products are rows of a table."""

import copy
import pickle
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import lstm_fastkernels as lfk
from cases import assert_by_contract, assert_same, by_contract
from id_cases import CLASSES, OTHERS, STACKS, folded, ids_of, one_hot, one_hot_twin
from isas import assert_same_bits, everywhere
from lstm_fastkernels.ops import eager
from lstm_fastkernels.weights.formats import TABLES

CASE = STACKS[1]


@pytest.mark.parametrize("others", OTHERS)
@pytest.mark.parametrize("case", STACKS, ids=str)
def test_contract(case, others):
    fast, ids, state = folded(case, others), ids_of(case), case.state()
    assert fast.takes_ids
    assert fast.input_size == CLASSES
    for hx in (None, state):
        y, _ = assert_by_contract(fast, ids, hx, message=f"{case} {others}")
        assert y.dtype == torch.float32
        assert_by_contract(fast, ids, hx, case.lengths(), f"{case} {others} lengths")


@pytest.mark.parametrize(
    "others", sorted(OTHERS.keys() - {"blocks", "low rank"})
)  # the twin is dense
@pytest.mark.parametrize("case", STACKS, ids=str)
def test_as_float32_products_with_one_hot_rows(case, others):
    """A product with 1 is exact, and so are sums of it and zeros."""
    fast, ids, state = folded(case, others), ids_of(case), case.state()
    assert_same(fast(ids, state), one_hot_twin(fast)(one_hot(ids), state), f"{case} {others}")


@pytest.mark.parametrize("case", STACKS, ids=str)
def test_forms_of_a_call(case):
    fast, ids, state, lengths = folded(case), ids_of(case), case.state(), case.lengths()
    call = everywhere(fast)
    expected = call(ids, state)
    assert_same_bits(call(ids.int(), state), expected)
    assert_same_bits(call(ids.T.contiguous().T, state), expected)
    wide = torch.full((*ids.shape, 3), -1)
    wide[..., 1] = ids
    assert_same_bits(call(wide[..., 1], state), expected)
    batch, time = (0, 1) if case.batch_first else (1, 0)
    for row in range(case.B):
        y, (h, c) = call(ids.select(batch, row), tuple(s[:, row] for s in state))
        assert torch.equal(y, expected[0].select(batch, row)), row
        assert torch.equal(h, expected[1][0][:, row]), row
        assert torch.equal(c, expected[1][1][:, row]), row

    # Padding is never looked up.
    padded = ids.clone().movedim(time, 0)
    for row, length in enumerate(lengths.tolist()):
        padded[length:, row] = -100
    padded = padded.movedim(0, time)
    by_length = call(padded, state, lengths)
    packed = pack_padded_sequence(ids, lengths, case.batch_first, enforce_sorted=False)
    y, states = call(packed, state)
    y, _ = pad_packed_sequence(y, case.batch_first)
    assert_same_bits((y, states), by_length)


@pytest.mark.parametrize("case", [c for c in STACKS if not c.bidirectional], ids=str)
def test_steps_and_chunks(case):
    fast, ids = folded(case), ids_of(case)
    first = lfk.State(*case.state())
    expected = everywhere(fast)(ids, first)

    def by_steps(out):
        state, outputs = first.copy(), []
        for t in range(case.T):
            y = torch.empty(case.B, case.proj_size or case.hidden_size) if out else None
            outputs.append(fast.step(ids[t], state, y))
        return torch.stack(outputs), (state.h, state.c)

    def in_chunks():
        (y, state), (rest, last) = fast(ids[:2], first), (None, None)
        rest, last = fast(ids[2:], state)
        return torch.cat([y, rest]), last

    for run in (lambda: by_steps(False), lambda: by_steps(True), in_chunks):
        assert_same_bits(everywhere(run)(), expected)


def test_rows_alone_and_threads(threads):
    case = replace(CASE, hidden_size=151, T=30, B=17)
    fast, ids, state = folded(case), ids_of(case), case.state()
    together = everywhere(fast)(ids, state)
    for row in (0, 8, 16):
        rows = slice(row, row + 1)
        y, (h, c) = fast(ids[:, rows], tuple(s[:, rows] for s in state))
        assert_same_bits((y, h, c), (together[0][:, rows], *(s[:, rows] for s in together[1])))
    threads(3)
    assert_same_bits(everywhere(fast)(ids, state), together)


def test_eager_calls_go_past_the_dispatcher():
    for case in STACKS:
        fast, ids, state = folded(case), ids_of(case), case.state()
        fast(ids)  # the op meets the weights first
        for given in (ids, ids.int()):
            for hx in (None, state):
                short = eager.lstm(fast, given, hx)
                assert short is not None
                op = fast._run(given.unsqueeze(-1), hx, None, case.batch_first)
                assert_same_bits(short, op, str(case))
        one, states = ids[0] if case.batch_first else ids[:, 0], [s[:, 0].clone() for s in state]
        assert eager.lstm(fast, one, tuple(states)) is not None
        assert eager.step(fast, one[:1].expand(case.B), lfk.State(*state), None, None) is not None
        for wrong in (
            ids.to(torch.int16),
            ids.float(),
            one_hot(ids),
            ids[None],
            ids[0, 0],
            ids + 20,
        ):
            assert eager.lstm(fast, wrong, None) is None, wrong.dtype


def test_a_cell():
    table = torch.randn(CLASSES, 4 * 9)
    cell = lfk.FastQuantLSTMCell(CLASSES, 9, precision={"weight_ih_l0": "table"})
    cell.load_state_dict({**cell.state_dict(), "weight_ih_l0_table": table})
    lstm = lfk.FastQuantLSTM(CLASSES, 9, precision={"weight_ih_l0": "table"})
    lstm.load_state_dict(cell.state_dict())
    ids, h, c = torch.tensor([3, 0, 22]), torch.randn(3, 9), torch.randn(3, 9)
    _, (h_n, c_n) = lstm(ids[None], (h[None], c[None]))
    expected = h_n[0], c_n[0]
    assert_same_bits(everywhere(cell)(ids, (h, c)), expected)
    assert_same_bits(cell(ids[1], (h[1], c[1])), tuple(s[1] for s in expected))
    with torch.autocast("cpu"):
        assert_same_bits(cell(ids, (h, c)), expected)
    with pytest.raises(RuntimeError, match=r"token ids must be in 0\.\.22, got 23"):
        cell(torch.tensor([3, 23, 22]))
    with pytest.raises(ValueError, match=r"token ids must be \[B\] or \[\], got 2D"):
        cell(ids[None])


@pytest.mark.parametrize("wrong", [-1, CLASSES, 2**40, -(2**63)])
def test_ids_out_of_range(wrong):
    """In any row and step, and before anything is written."""
    fast, ids = folded(CASE), ids_of(CASE)
    before = everywhere(fast)(ids)
    for t, row in ((0, 0), (17, 2), (69, 1)):
        bad = ids.clone()
        bad[t, row] = wrong
        said = (
            rf"token ids must be in 0\.\.{CLASSES - 1}, got {wrong} at time step {t} of row {row}"
        )
        with pytest.raises(RuntimeError, match=said):
            fast(bad)
        with pytest.raises(RuntimeError, match=said):
            fast(bad, None, torch.tensor([69, 70, 70]) if row else torch.tensor([70, 69, 69]))
        state = lfk.State(*(s.clone() for s in CASE.state()))
        held = state.copy()
        with pytest.raises(RuntimeError, match=rf"got {wrong} at time step 0 of row {row}"):
            fast.step(bad[t], state)
        assert_same_bits(tuple(state), tuple(held))
    assert_same_bits(fast(ids), before)


def test_inputs_of_the_other_kind():
    fast, ids = folded(CASE), ids_of(CASE)
    plain = CASE.fast()
    for wrong in (one_hot(ids), ids.float(), ids.short(), ids.bool()):
        with pytest.raises(ValueError, match="reads token ids, int64 or int32"):
            fast(wrong)
    with pytest.raises(ValueError, match=r"\[B\] or \[\], got torch.float32"):
        fast.step(one_hot(ids)[0], fast.new_state(CASE.B))
    with pytest.raises(TypeError, match="int64 tensor of token ids, got int"):
        fast.step(3, fast.new_state())
    with pytest.raises(TypeError, match="sparse"):
        fast(ids.to_sparse())
    for dims in (ids[0, 0], ids[None]):
        with pytest.raises(ValueError, match="token ids must be"):
            fast(dims)
    with pytest.raises(ValueError, match="input must be float32, float16 or bfloat16, got int64"):
        plain(torch.zeros(4, 3, 12, dtype=torch.int64))
    for state in (torch.zeros(2, 3, 31).half(), torch.zeros(2, 3, 31).bfloat16()):
        with pytest.raises(RuntimeError, match="h0 and c0 must be float32"):
            fast(ids, (state, state))
    op = torch.ops.lstm_fastkernels.lstm
    with pytest.raises(RuntimeError, match=r"Expected 1, got 23"):
        op(one_hot(ids), None, None, None, fast.packed, fast._sizes, False)
    with pytest.raises(ValueError, match="input must be token ids, int64 or int32, got float32"):
        op(one_hot(ids)[..., :1], None, None, None, fast.packed, fast._sizes, False)


def test_only_the_first_layer_has_tables():
    for precision in (
        {"weight_hh_l0": "table"},
        {"weight_ih_l1": "table"},
        {"weight_ih_*": "table"},
        {"weight_ih_l0": "table", "weight_hr_l0": "table_float16"},
    ):
        with pytest.raises(ValueError, match="tables of token ids must be weight_ih_l0 and no"):
            lfk.FastQuantLSTM(9, 8, 2, proj_size=3, precision=precision)
    with pytest.raises(ValueError, match="must be weight_ih_l0 and weight_ih_l0_reverse"):
        lfk.FastQuantLSTM(9, 8, bidirectional=True, precision={"weight_ih_l0": "table"})
    with pytest.raises(ValueError, match="tables have no blocks"):
        lfk.FastQuantLSTM(9, 8, precision={"weight_ih_l0": "table"}, layout="block_sparse")
    with pytest.raises(ValueError, match="precision of weight_ih_l0 must be one of"):
        lfk.FastSparseLSTM(9, 8, precision={"weight_ih_l0": "table"})
    for name in TABLES:
        with pytest.raises(ValueError, match="precision of weight_ih_l0 must be one of"):
            lfk.quantize_(nn.LSTM(9, 8), lfk.Int8Config(precision={"weight_ih_l0": name}))


@pytest.mark.parametrize("others", OTHERS)
def test_life_of_a_module(others):
    fast, ids = folded(CASE, others), ids_of(CASE)
    expected = fast(ids)
    for twin in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast)), fast.half(), fast.float()):
        assert_same_bits(twin(ids), expected)
    again = lfk.FastQuantLSTM(
        CLASSES, 31, 2, precision=dict(fast.precision), group_size=fast.group_size
    )
    again.load_state_dict(fast.state_dict())
    assert_same_bits(again(ids), expected)
    for name, tensor in fast.state_dict().items():
        assert again.state_dict()[name].dtype == tensor.dtype, name
    assert fast.weight_ih_l0_table.shape == (CLASSES, 4 * 31)
    assert "weight_ih_l0: table" in repr(fast)
    fast.weight_ih_l0_table.zero_()
    assert_same(fast(ids), by_contract(fast, ids))
    assert not torch.equal(fast(ids)[0], expected[0])


def test_float_checkpoints():
    """A module with a table is the twin of an nn.LSTM that reads one-hot rows."""
    lstm = nn.LSTM(CLASSES, 9, 2, bidirectional=True)
    fast = lfk.FastQuantLSTM.from_float(lstm, precision={"weight_ih_l0*": "table"})
    loaded = lfk.FastQuantLSTM(
        CLASSES, 9, 2, bidirectional=True, precision={"weight_ih_l0*": "table"}
    )
    loaded.load_state_dict(lstm.state_dict())
    assert_same_bits(tuple(loaded.state_dict().values()), tuple(fast.state_dict().values()))
    back = fast.dequantize()
    assert torch.equal(back.weight_ih_l0_reverse, lstm.weight_ih_l0_reverse)
    assert_same_bits(
        tuple(lfk.FastQuantLSTM.from_float(back, precision={"weight_ih_l0*": "table"})(
            torch.arange(5)[:, None]
        )[1]),
        tuple(fast(torch.arange(5)[:, None])[1]),
    )  # fmt: skip


def test_checkpoints_of_the_other_kind():
    fast, plain = folded(CASE), lfk.FastQuantLSTM(CLASSES, 31, 2)
    with pytest.raises(RuntimeError, match=r"weight_ih_l0_table .* 'table'.* takes them"):
        plain.load_state_dict(fast.state_dict())
    with pytest.raises(RuntimeError, match=r"weight_ih_l0 .* 'int8'.* takes them"):
        fast.load_state_dict(plain.state_dict())
    halves = folded(CASE, "int8, halves")
    with pytest.raises(RuntimeError, match=r"'table_float16'.* takes them"):
        fast.load_state_dict(halves.state_dict())
    for wrong in (float("nan"), float("inf")):
        state = {name: tensor.clone() for name, tensor in fast.state_dict().items()}
        state["weight_ih_l0_table"][3, 5] = wrong
        with pytest.raises(RuntimeError, match=r"weight_ih_l0_table .*must be finite"):
            fast.load_state_dict(state)


def test_explain():
    fast = folded(CASE, "int8, halves")
    for text in (lfk.explain(fast), lfk.explain(fast, ids_of(CASE))):
        assert f"weight_ih_l0: table of {CLASSES} token ids; float16\n" in text
    assert "T=70, B=3" in lfk.explain(fast, ids_of(CASE))
    with pytest.raises(ValueError, match="reads token ids"):
        lfk.explain(fast, one_hot(ids_of(CASE)))


def test_derivatives_and_autocast():
    fast, ids = folded(CASE), ids_of(CASE)
    expected = fast(ids, CASE.state())
    with torch.autocast("cpu"):
        assert_same_bits(fast(ids, CASE.state()), expected)
    state = tuple(s.requires_grad_() for s in CASE.state())
    y, _ = fast(ids, state)
    with pytest.raises(RuntimeError, match="for inference"):
        y.sum().backward()
