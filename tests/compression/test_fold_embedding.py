"""fold_embedding: what the table is, what is taken over and what is refused."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import lstm_fastkernels as lfk
from cases import assert_same, flat
from id_cases import CLASSES, OTHERS, STACKS, embedding_of, folded, ids_of, lstm_of, one_hot
from isas import assert_same_bits, everywhere


def float64_of(case, others="int8"):
    """What embedding and float LSTM give for the ids, in float64."""
    lstm, embedding = lstm_of(case, others).double(), embedding_of(case).double()
    with torch.no_grad():
        return lstm(embedding(ids_of(case)), tuple(s.double() for s in case.state()))


def worst(result, exact):
    return max(float((a - b).abs().max()) for a, b in zip(flat(result), flat(exact), strict=True))


@pytest.mark.parametrize("others", OTHERS)
@pytest.mark.parametrize("case", STACKS, ids=str)
def test_no_worse_than_embedding_and_fast_lstm(case, others):
    """Folding takes the rounding of the embeddings away: within twice the error that the same LSTM
    has on them."""
    options, _ = OTHERS[others]
    exact, state = float64_of(case, others), case.state()
    unfolded = lfk.FastQuantLSTM.from_float(lstm_of(case, others), **options)
    with torch.no_grad():
        baseline = worst(unfolded(embedding_of(case)(ids_of(case)), state), exact)
    error = worst(everywhere(folded(case, others))(ids_of(case), state), exact)
    assert error <= 2 * baseline, f"{error} {baseline}"


def test_rows_are_rounded_once():
    case = STACKS[3]
    lstm, embedding = case.lstm(), embedding_of(case)
    fast = lfk.fold_embedding(embedding, lstm)
    halves = lfk.fold_embedding(embedding, lstm, torch.float16)
    for name in ("weight_ih_l0", "weight_ih_l0_reverse"):
        exact = embedding.weight.detach().double() @ getattr(lstm, name).detach().double().T
        table = getattr(fast, f"{name}_table")
        assert torch.equal(table, exact.float())
        rounded = getattr(halves, f"{name}_table")
        assert torch.equal(rounded, table.half())
        error = (rounded.double() - exact).abs()
        assert (error <= (exact.abs() * 2**-11).clamp(min=2**-25) * 1.001).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_one_hot_rows(dtype):
    lstm = nn.LSTM(CLASSES, 9)
    ids = torch.arange(CLASSES)[:, None]
    fast = lfk.fold_embedding(None, lstm, dtype)
    assert_same_bits(fast(ids), lfk.fold_embedding(CLASSES, lstm, dtype)(ids))
    assert torch.equal(fast.weight_ih_l0_table, lstm.weight_ih_l0.detach().T.to(dtype))
    if dtype == torch.float32:
        options = {"precision": {"weight_ih_l0": "float32"}}
        assert_same(fast(ids), lfk.FastQuantLSTM.from_float(lstm, **options)(one_hot(ids)))
    for wrong in (CLASSES - 1, CLASSES + 1):
        with pytest.raises(ValueError, match=f"reads {CLASSES} columns, not {wrong} classes"):
            lfk.fold_embedding(wrong, lstm)


@pytest.mark.parametrize("others", OTHERS)
@pytest.mark.parametrize("case", STACKS, ids=str)
def test_fast_lstms_keep_their_other_matrices(case, others):
    options, dtype = OTHERS[others]
    lstm, embedding, ids = lstm_of(case, others), embedding_of(case), ids_of(case)
    options = {**options, "precision": {"weight_ih_l0*": "float32", **options.get("precision", {})}}
    fast = lfk.FastQuantLSTM.from_float(lstm, **options)
    result = lfk.fold_embedding(embedding, fast, dtype)
    for name, tensor in fast.state_dict().items():
        if not name.startswith("weight_ih_l0"):
            assert torch.equal(result.state_dict()[name], tensor), name
    assert result.group_size == fast.group_size
    assert result.batch_first == fast.batch_first
    expected = lfk.fold_embedding(embedding, lstm, dtype, **options)
    if not fast.canonical().is_low_rank("weight_ih_l0"):
        assert_same_bits(result(ids), expected(ids))
    else:  # the product of its factors was rounded to float32 before
        assert worst(result(ids), expected(ids)) < 1e-4
    assert fast(embedding(ids).detach())[0].shape == result(ids)[0].shape  # nothing has changed


def test_sparse_lstms_and_blocks():
    case = replace(STACKS[1], activations="float32", density=0.3, layout="block_sparse")
    sparse, embedding = case.fast(), embedding_of(case)
    result = lfk.fold_embedding(embedding, sparse)
    assert result.precision == {
        "weight_ih_l0": "table",
        **dict.fromkeys(["weight_hh_l0", "weight_ih_l1", "weight_hh_l1"], "float32"),
    }
    assert result.layouts()["weight_hh_l0"].startswith("8x4 blocks")
    assert result.layout == "auto"  # a table has no blocks
    embedded = embedding(ids_of(case)).detach()
    with torch.no_grad():
        exact = case.lstm().double()(embedded.double())
    assert worst(result(ids_of(case)), exact) <= 2 * worst(sparse(embedded), exact)


def test_in_the_place_of_both():
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(CLASSES, 12, padding_idx=0)
            self.lstm = nn.LSTM(12, 9, bidirectional=True)
            self.head = nn.Linear(18, 4)

        def forward(self, ids):
            return self.head(self.lstm(self.embedding(ids))[0])

    model, ids = Tagger().eval(), torch.randint(0, CLASSES, (6, 2))
    model.requires_grad_(False)
    expected = model(ids)
    baseline = float((lfk.convert(model)(ids) - expected).abs().max())
    model.lstm.register_forward_hook(lambda *_: None)
    model.lstm = lfk.fold_embedding(model.embedding, model.lstm)
    model.embedding = nn.Identity()
    assert len(model.lstm._forward_hooks) == 1
    assert not model.lstm.training
    assert float((model(ids) - expected).abs().max()) <= 2 * baseline
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert torch.equal(compiled(ids), model(ids))
    exported = torch.export.export(model, (ids,)).module()
    assert torch.equal(exported(ids), model(ids))


def test_max_norm_and_padding():
    lstm, ids = nn.LSTM(4, 9), torch.arange(CLASSES)[:, None]
    embedding = nn.Embedding(CLASSES, 4, padding_idx=3, max_norm=1.5, norm_type=1.0)
    weight = embedding.weight.detach().clone()
    fast = lfk.fold_embedding(embedding, lstm)
    assert torch.equal(embedding.weight, weight)
    embedded = embedding(ids).detach()  # writes to its weight
    assert not torch.equal(embedding.weight, weight)
    again = lfk.fold_embedding(nn.Embedding.from_pretrained(embedded[:, 0]), lstm)
    assert_same_bits(fast(ids), again(ids))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_models_of_other_dtypes(dtype):
    case = STACKS[0]
    lstm, embedding, ids = case.lstm().to(dtype), embedding_of(case).to(dtype), ids_of(case)
    wide = lfk.fold_embedding(embedding.double(), lstm.double())
    assert_same_bits(lfk.fold_embedding(embedding.to(dtype), lstm.to(dtype))(ids), wide(ids))


def test_what_is_refused():
    lstm, embedding = nn.LSTM(4, 9), nn.Embedding(CLASSES, 4)
    fold, fast = lfk.fold_embedding, lfk.FastQuantLSTM.from_float(lstm)
    with pytest.raises(ValueError, match="dtype must be one of"):
        fold(embedding, lstm, torch.bfloat16)
    for other in (nn.GRU(4, 9), nn.LSTMCell(4, 9), nn.Linear(4, 4)):
        with pytest.raises(TypeError, match=r"expects an nn.LSTM, FastQuantLSTM or FastSparseLSTM"):
            fold(embedding, other)
    for other in (nn.EmbeddingBag(CLASSES, 4), embedding.weight, True, 4.0):
        with pytest.raises(TypeError, match=r"expected an nn.Embedding"):
            fold(other, lstm)
    with pytest.raises(TypeError, match="ParametrizedEmbedding"):
        fold(parametrizations.orthogonal(nn.Embedding(CLASSES, 4)), lstm)
    with pytest.raises(ValueError, match=r"expected \(any, 4\), got \(23, 5\)"):
        fold(nn.Embedding(CLASSES, 5), lstm)
    with pytest.raises(ValueError, match="takes token ids already"):
        fold(embedding, fold(embedding, lstm))
    with pytest.raises(ValueError, match=r"activations is an option for nn.LSTM"):
        fold(embedding, fast, activations="int16")
    with pytest.raises(ValueError, match="at most 65535 token ids, got 65536"):
        fold(nn.Embedding(65_536, 4), lstm)
    with pytest.raises(ValueError, match="meta"):
        fold(nn.Embedding(CLASSES, 4, device="meta"), lstm)
    for value, dtype, said in (
        (float("nan"), torch.float32, "embedding: values must be finite"),
        (1e38, torch.float32, "cannot hold"),
        (1e7, torch.float16, "torch.float16 cannot hold"),
    ):
        with torch.no_grad():
            large = nn.Embedding.from_pretrained(torch.full((CLASSES, 4), value))
            steep = nn.LSTM(4, 9)
            steep.weight_ih_l0.fill_(9.0)
        with pytest.raises(ValueError, match=said):
            fold(large, steep, dtype)


def test_hooks_that_would_be_lost():
    lstm, embedding = nn.LSTM(4, 9), nn.Embedding(CLASSES, 4)
    handle = embedding.register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="embedding: it has hooks"):
        lfk.fold_embedding(embedding, lstm)
    handle.remove()
    lstm.register_forward_pre_hook(lambda *_: None)
    for module in (lstm, lfk.FastQuantLSTM.from_float(lstm)):
        with pytest.raises(ValueError, match="hooks on its input, which would be ids"):
            lfk.fold_embedding(embedding, module)
    embedding.forward = lambda ids: ids
    with pytest.raises(ValueError, match="embedding: its forward is not that of Embedding"):
        lfk.fold_embedding(embedding, nn.LSTM(4, 9))


def test_check_names_them():
    model, reference = nn.ModuleDict(), nn.ModuleDict({"lstm": nn.LSTM(4, 9)})
    model["lstm"] = lfk.fold_embedding(nn.Embedding(CLASSES, 4), reference["lstm"])
    with pytest.raises(
        ValueError, match="lstm reads token ids, its twin in the reference does not"
    ):
        lfk.check(model, reference, [torch.zeros(2, 1, 4)])
