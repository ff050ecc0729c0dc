"""A prepared LSTM computes, to the bit, what its conversion will."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import lstm_fastkernels as lfk
from cases import Case, flat
from isas import assert_same_bits, everywhere
from lstm_fastkernels import reference
from qat_cases import BASES, CASES, converted, only_matching, prepared


def inputs(case):
    """A PackedSequence and a state."""
    packed = pack_padded_sequence(
        case.x(), case.lengths(), batch_first=case.batch_first, enforce_sorted=False
    )
    return packed, case.state()


def train(lstm, *arguments, steps=3):
    optimizer = torch.optim.Adam(lstm.parameters(), lr=0.02)
    for _ in range(steps):
        y, h, c = flat(lstm(*arguments))
        loss = (y - 0.5).square().mean() + h.square().mean() + c.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize("scales", ["learned", "followed"])
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_equal_before_and_after_training(case, base, scales):
    base = only_matching(BASES[base], case)
    lstm, arguments = case.lstm(), inputs(case)
    at_once = nn.Sequential(copy.deepcopy(lstm))
    lfk.quantize_(at_once, base)
    prepared(lstm, base, scales)
    assert_same_bits(flat(lstm(*arguments)), flat(at_once[0](*arguments)), "before")
    before = flat(lstm(*arguments))
    train(lstm.train(), *arguments)
    trained = flat(everywhere(lstm)(*arguments))
    assert not torch.equal(trained[0], before[0])
    twin = converted(lstm, base)
    assert type(twin) is lfk.FastQuantLSTM
    assert_same_bits(flat(twin(*arguments)), trained, "after")


@pytest.mark.parametrize("base", BASES)
def test_other_ways_to_call(base):
    case = Case(9, 31, num_layers=2, batch_first=True)
    lstm = prepared(case.lstm(), only_matching(BASES[base], case))
    twin = converted(copy.deepcopy(lstm), only_matching(BASES[base], case))
    x, (h, c) = case.x(), case.state()
    calls = [
        (x,),
        (x, (h, c)),
        (x[0],),
        (x[0], (h[:, 0], c[:, 0])),
        (x.half(),),
        (x.bfloat16(), (h.bfloat16(), c.bfloat16())),
        (x.bfloat16(), (h, c)),
        (x[:0],),
    ]
    for arguments in calls:
        assert_same_bits(flat(lstm(*arguments)), flat(twin(*arguments)))
    with torch.autocast("cpu", torch.bfloat16):
        assert_same_bits(flat(lstm(x, (h, c))), flat(twin(x, (h, c))))


@pytest.mark.parametrize("base", BASES)
def test_cells(base):
    case = Case(9, 31)
    base = only_matching(BASES[base], case)
    cell = prepared(case.cell(), base)
    x, (h, c) = case.x()[0], (state[0] for state in case.state())
    calls = [(x,), (x, (h, c)), (x[0],), (x[0], (h[0], c[0])), (x.half(), (h.half(), c.half()))]
    optimizer = torch.optim.Adam(cell.parameters(), lr=0.02)
    sum(state.square().sum() for state in cell(x, (h, c))).backward()
    optimizer.step()
    twin = converted(copy.deepcopy(cell), base)
    assert type(twin) is lfk.FastQuantLSTMCell
    for arguments in calls:
        assert_same_bits(cell(*arguments), twin(*arguments))
    with torch.autocast("cpu", torch.bfloat16):
        assert_same_bits(cell(x, (h, c)), twin(x, (h, c)))


@pytest.mark.parametrize("base", BASES)
def test_training_forward_is_the_contract(base):
    case = Case(37, 41, num_layers=2, bidirectional=True, proj_size=19)
    base = BASES[base]
    lstm = prepared(case.lstm(), base).train()
    train(lstm, case.x(), case.state())
    twin = converted(copy.deepcopy(lstm), base)
    y, (h, c) = reference.lstm(
        twin.state_dict(),
        case.x(),
        case.state(),
        hidden_size=41,
        num_layers=2,
        bidirectional=True,
        proj_size=19,
        precision=twin.precision,
    )
    assert_same_bits(flat(everywhere(lstm)(case.x(), case.state())), (y, h, c))


@pytest.mark.parametrize("layout", ["dense", "block_sparse", "auto"])
def test_layouts(layout):
    case = Case(9, 31, density=0.3)
    base = lfk.Int8Config(layout=layout)
    lstm = prepared(case.lstm(), base)
    before = flat(lstm(case.x()))
    twin = converted(lstm, base)
    assert twin.layout == layout
    assert_same_bits(flat(twin(case.x())), before)


@pytest.mark.parametrize("scales", ["learned", "followed"])
@pytest.mark.parametrize("base", [lfk.Int8Config(), lfk.Int4Config()], ids=["int8", "int4"])
def test_begins_as_the_calibrated_model(base, scales):
    case = Case(37, 41, num_layers=2, bidirectional=True, proj_size=19, T=12, B=8)
    batches = [replaced.x() for replaced in (case, case, case)]
    at_once = nn.Sequential(case.lstm())
    expected = lfk.quantize_(at_once, base, calibration=batches)
    lstm = case.lstm()
    report = lfk.quantize_(lstm, lfk.QATConfig(base, "prepare", scales), calibration=batches)
    assert_same_bits(flat(lstm(case.x())), flat(at_once[0](case.x())))
    assert report.lstms[0].sqnr == expected.lstms[0].sqnr
    assert report.model is lstm


def test_dropout_is_between_the_layers_and_in_training_only():
    lstm = nn.LSTM(9, 31, 2, dropout=1.0)
    prepared(lstm, lfk.Int8Config())
    x = torch.randn(5, 3, 9)
    lstm.train()
    assert_same_bits(lstm(x)[0], lstm(torch.randn(5, 3, 9))[0])
    assert lstm(x)[1][0][0].any()
    lstm.eval()
    assert not torch.equal(lstm(x)[0], lstm(torch.randn(5, 3, 9))[0])


def test_without_kernels_for_the_device_it_is_the_same(monkeypatch):
    from lstm_fastkernels.compression.qat import layer

    case = Case(9, 31, num_layers=2, bidirectional=True)
    lstm = prepared(case.lstm(), lfk.Int8Config(activations="mixed"))
    packed = inputs(case)
    expected = flat(lstm(*packed))
    monkeypatch.setattr(layer, "has_kernels", lambda device: False)
    assert_same_bits(flat(lstm(*packed)), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_on_cuda(case, base):
    base = only_matching(BASES[base], case)
    on_cpu = prepared(case.lstm(), base)
    lstm = copy.deepcopy(on_cpu).cuda()
    packed, state = inputs(case)
    arguments = packed.to("cuda"), tuple(part.cuda() for part in state)
    for given, wanted in zip(flat(lstm(*arguments)), flat(on_cpu(packed, state)), strict=True):
        assert_same_bits(given.cpu(), wanted)
    train(lstm, *arguments)
    trained = flat(lstm(*arguments))
    assert_same_bits(flat(converted(lstm, base)(*arguments)), trained)
