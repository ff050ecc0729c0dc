"""Gradients of prepared LSTMs against autograd, and what learning and following scales does."""

import pytest
import torch

import lstm_fastkernels as lfk
from cases import Case, flat
from qat_cases import BASES, only_matching, prepared, straight_through

SHAPES = [
    Case(9, 31, T=7, B=5),
    Case(9, 31, T=7, B=5, bidirectional=True, bias=False),
    Case(37, 41, T=7, B=5, bidirectional=True, proj_size=19),
]


def near(actual, expected):
    """Floats add up in another order, and a rounded activation may be its neighbour."""
    return (actual - expected).norm() <= 2e-3 * expected.norm() + 1e-7


def check_gradients(lstm, base, case):
    leaves = {"x": case.x(), "h0": case.state()[0], "c0": case.state()[1]}
    leaves = {name: leaf.requires_grad_() for name, leaf in leaves.items()}
    x, h0, c0 = leaves.values()
    leaves |= dict(lstm.named_parameters())
    lengths = case.lengths()
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    y, _ = torch.nn.utils.rnn.pad_packed_sequence(lstm(packed, (h0, c0))[0], total_length=case.T)
    expected = straight_through(lstm, base, x, (h0, c0), lengths)
    torch.testing.assert_close(y, expected)
    by = case.random(*y.shape)
    actual = torch.autograd.grad((y * by).sum(), list(leaves.values()))
    wanted = torch.autograd.grad((expected * by).sum(), list(leaves.values()))
    for name, a, w in zip(leaves, actual, wanted, strict=True):
        assert near(a, w), (name, (a - w).norm() / w.norm())
        assert w.any() or "gain" in name


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("case", SHAPES, ids=str)
def test_of_weights_scales_inputs_and_states(case, base):
    base = only_matching(BASES[base], case)
    lstm = case.lstm()
    prepared(lstm, base)
    # So that some saturate, and scales are none that weights were fitted to.
    with torch.no_grad():
        for name, parameter in lstm.named_parameters():
            if name.endswith("log2_gain"):
                parameter.copy_(torch.randn_like(parameter) * 0.3)
    check_gradients(lstm, base, case)


def test_low_rank_and_masks():
    case = SHAPES[2]
    lstm = case.lstm()
    model = torch.nn.Sequential(lstm)
    lfk.factorize_(model, lfk.LowRankConfig(rank={"weight_hh*": 5}))
    base = lfk.Int8Config(pair_safe=False)
    prepared(lstm, base)
    check_gradients(lstm, base, case)

    lstm = case.lstm()
    lfk.prune_(lstm, lfk.PruneConfig(0.5))
    prepared(lstm, base)
    check_gradients(lstm, base, case)


def test_last_states_and_the_double_derivative():
    case = Case(9, 31, num_layers=2)
    lstm = prepared(case.lstm(), lfk.Int8Config(activations="int16"))
    plain = case.lstm()
    for result in (lstm(case.x(), case.state()), plain(case.x(), case.state())):
        _, h, c = flat(result)
        (h * c).sum().backward()
    for name in ("weight_ih_l0", "weight_hh_l1"):
        actual, wanted = lstm.parametrizations[name].original.grad, getattr(plain, name).grad
        assert torch.cosine_similarity(actual.flatten(), wanted.flatten(), 0) > 0.99
    x = case.x().requires_grad_()
    (gradient,) = torch.autograd.grad(lstm(x)[0].square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="twice"):
        gradient.sum().backward()


def test_pairs_are_held_to_the_rule_without_a_gradient():
    lstm = torch.nn.LSTM(8, 8)
    with torch.no_grad():
        lstm.weight_ih_l0[:, :2] = 1.0
        lstm.weight_ih_l0[:, 2:] = 0.3
    prepared(lstm, lfk.Int8Config(pair_safe=True))
    twin_pairs = lstm.parametrizations.weight_ih_l0[-1]
    _, tensors = twin_pairs.fake(lstm.parametrizations.weight_ih_l0.original)
    integers = tensors[""].int()
    assert (integers[:, ::2] + integers[:, 1::2]).abs().max() <= 128
    with torch.no_grad():
        lstm.parametrizations.weight_ih_l0.original[:, 1] = 1e3
    _, tensors = twin_pairs.fake(lstm.parametrizations.weight_ih_l0.original)
    integers = tensors[""].int()
    assert (integers[:, ::2] + integers[:, 1::2]).abs().max() <= 128
    lstm(torch.randn(3, 2, 8))[0].square().sum().backward()
    gradient = lstm.parametrizations.weight_ih_l0.original.grad
    assert not gradient[:, 1].any()
    assert gradient[:, 2:].any()


def test_followed_scales_keep_their_ratio_to_the_largest_weight():
    lstm = prepared(torch.nn.LSTM(9, 31), lfk.Int4Config(group_size=32), "followed")
    name = "weight_hh_l0"
    fake, original = lstm.parametrizations[name][-1], lstm.parametrizations[name].original
    assert not [p for p, _ in lstm.named_parameters() if "fake" in p or "gain" in p]
    before = fake.fake(original)[1]
    with torch.no_grad():
        original.mul_(2)
    after = fake.fake(original)[1]
    assert torch.equal(after["_scale"], 2 * before["_scale"])
    assert torch.equal(after[""], before[""])
