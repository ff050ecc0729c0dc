"""What people have put on an LSTM goes over to its fast twin: hooks and attributes."""

import copy

import pytest
import torch
from torch import nn

import lstm_fastkernels as lfk
from altered_lstms import Held, unwrap_forward, wrap_forward
from isas import everywhere

CONVERSIONS = {
    "convert": lfk.convert,
    "inplace": lambda model: lfk.convert(model, inplace=True),
    "float32": lambda model: lfk.convert(model, weights="float32"),
}


@pytest.fixture(params=CONVERSIONS.values(), ids=CONVERSIONS)
def conversion(request):
    return request.param


def scale_input(module, args):
    return (args[0] / 3, *args[1:])


def scale_output(module, args, output):
    return output[0] * 2, output[1]


@torch.no_grad()
def test_hooks_change_the_result_as_before(conversion):
    model = Held(nn.LSTM(5, 7, 2))
    x = torch.randn(4, 3, 5)
    plain = lfk.FastQuantLSTM if conversion is not CONVERSIONS["float32"] else lfk.FastSparseLSTM
    expected = 2 * plain.from_float(model.again)(x / 3)[0]
    model.again.register_forward_pre_hook(scale_input)
    model.again.register_forward_hook(scale_output)
    fast = conversion(model)
    assert torch.equal(everywhere(fast)(x), expected)
    assert torch.equal(copy.deepcopy(fast)(x), expected)


def test_all_kinds_of_hooks_in_their_order(conversion):
    model, order = Held(nn.LSTM(5, 7, 2)), []
    lstm = model.again
    for name in ("first", "second"):
        lstm.register_forward_pre_hook(lambda m, args, name=name: order.append(("pre", name)))
        lstm.register_forward_hook(lambda m, args, y, name=name: order.append(("post", name)))
    lstm.register_forward_pre_hook(
        lambda m, args, kwargs: order.append(("pre", sorted(kwargs))), with_kwargs=True
    )
    lstm.register_forward_pre_hook(lambda m, args: order.append(("pre", "zeroth")), prepend=True)
    lstm.register_forward_hook(
        lambda m, args, kwargs, y: order.append(("post", type(m).__name__)), with_kwargs=True
    )
    lstm.register_forward_hook(lambda m, args, y: order.append("always"), always_call=True)
    lstm.register_full_backward_hook(lambda m, gx, gy: order.append("backward"))
    lstm.register_full_backward_pre_hook(lambda m, gy: order.append("backward"))
    fast = conversion(model)
    fast.again(torch.randn(4, 3, 5), hx=None)
    assert order == [
        ("pre", "zeroth"),
        ("pre", "first"),
        ("pre", "second"),
        ("pre", ["hx"]),
        ("post", "first"),
        ("post", "second"),
        ("post", type(fast.again).__name__),
        "always",
    ]
    order.clear()
    with pytest.raises(RuntimeError):
        fast.again(torch.randn(4, 3, 9))
    assert order[-1] == "always"


def test_hooks_that_are_removed_later():
    model, seen = Held(nn.LSTM(5, 7, 2)), []
    handle = model.again.register_forward_hook(lambda *args: seen.append(1), always_call=True)
    pre = model.again.register_forward_pre_hook(lambda *args: seen.append(1))
    x = torch.randn(4, 3, 5)
    independent = lfk.convert(model)
    alone = lfk.FastQuantLSTM.from_float(model.again)
    lfk.convert(model, inplace=True)(x)
    assert len(seen) == 2
    handle.remove()
    pre.remove()
    model(x)
    assert len(seen) == 2
    independent(x)
    alone(x)
    assert len(seen) == 6


def test_a_method_of_the_model_as_hook():
    class Counting(Held):
        def __init__(self, lstm):
            super().__init__(lstm)
            self.calls = 0
            lstm.register_forward_hook(self.count)

        def count(self, *args):
            self.calls += 1

    model = Counting(nn.LSTM(5, 7, 2))
    fast = lfk.convert(model)
    fast(torch.randn(4, 3, 5))
    assert (model.calls, fast.calls) == (0, 1)


def test_attributes_go_over(conversion):
    model = Held(nn.LSTM(5, 7, 2))
    model.again.qconfig = None
    model.again.label = ["encoder"]
    model.again.parent = [nn.Linear(2, 2)]
    model.again.weight_hh_l0_before = model.again.weight_hh_l0.detach().clone()
    vars(model.again)["teacher"] = nn.Linear(2, 2)  # not registered
    lstm = conversion(model).again
    assert (lstm.qconfig, lstm.label, type(lstm.parent[0])) == (None, ["encoder"], nn.Linear)
    assert lstm.weight_hh_l0_before.shape == (28, 7)
    assert type(lstm.teacher) is nn.Linear
    assert [*lstm.modules()] == [lstm]
    assert not any("teacher" in key or "before" in key for key in lstm.state_dict())


def test_load_file_keeps_hooks(path):
    fast = lfk.convert(Held(nn.LSTM(5, 7, 2)))
    lfk.save_file(fast, path)
    x = torch.randn(4, 3, 5)
    expected = 2 * fast(x)
    for model in (Held(nn.LSTM(5, 7, 2)), lfk.convert(Held(nn.LSTM(5, 7, 2)))):
        handle = model.again.register_forward_hook(scale_output)
        model.again.label = "mine"
        lfk.load_file(path, model)
        assert torch.equal(model(x), expected)
        assert model.again.label == "mine"
        handle.remove()
        assert torch.equal(model(x), fast(x))


def test_dequantize_keeps_hooks():
    model = Held(nn.LSTM(5, 7, 2))
    handle = model.again.register_forward_hook(scale_output)
    model.again.label = "mine"
    lfk.convert(model, inplace=True)
    x = torch.randn(4, 3, 5)
    model(x)
    back = lfk.dequantize(model, inplace=True)
    assert type(back.again) is nn.LSTM
    assert back.again.label == "mine"
    doubled = back(x)
    handle.remove()
    assert torch.equal(doubled, 2 * back(x))


def test_a_stacked_lstm_keeps_hooks():
    torch.manual_seed(0)
    lstm = nn.LSTM(5, 16, 2)
    lstm.weight_hh_l0.data.mul_(3)
    model, seen = Held(lstm), []
    lstm.register_forward_hook(lambda *args: seen.append(1))
    following = {"block.rnn": [], "first": []}
    lfk.prune_hidden_(model, 0.5, scope="global", following=following)
    assert type(model.again) is lfk.StackedLSTM
    model(torch.randn(4, 3, 5))
    assert seen == [1]


def test_a_wrapper_that_is_off_again(conversion, path):
    model = Held(nn.LSTM(5, 7, 2))
    expected = conversion(copy.deepcopy(model))
    lfk.save_file(expected, path)
    wrap_forward(model.again)
    unwrap_forward(model.again)
    x = torch.randn(4, 3, 5)
    assert torch.equal(lfk.load_file(path, copy.deepcopy(model))(x), expected(x))
    fast = conversion(model)
    assert "forward" not in vars(fast.again)
    assert torch.equal(fast(x), expected(x))
