"""nn.LSTMs that do not compute, or save, what their class does: what people do to modules.

ALTERATIONS: name -> (what changes an nn.LSTM in place, what an error must say).
"""

import functools
import types

import torch
from torch import nn
from torch.nn.utils import parametrize, prune

# torch deprecates its old weight_norm.
DEPRECATED = "ignore:.*weight_norm.*:FutureWarning"


def wrap_forward(lstm):
    """As accelerate's add_hook_to_module does."""

    def new_forward(module, *args, **kwargs):
        return module._old_forward(*args, **kwargs)

    lstm._old_forward = lstm.forward
    lstm.forward = functools.update_wrapper(functools.partial(new_forward, lstm), lstm.forward)


def unwrap_forward(lstm):
    """As accelerate's remove_hook_from_module does: the class's method stays on the instance."""
    lstm.forward = lstm._old_forward
    del lstm._old_forward


def old_weight_norm(lstm):
    nn.utils.weight_norm(lstm, "weight_hh_l0")


def old_spectral_norm(lstm):
    nn.utils.spectral_norm(lstm, "weight_hh_l0")


def torch_pruned(lstm):
    prune.l1_unstructured(lstm, "weight_hh_l0", amount=0.5)


def as_plain_tensor(lstm):
    weight = lstm.weight_hh_l0.detach()
    del lstm.weight_hh_l0
    lstm.weight_hh_l0 = weight


def weight_drop(lstm):
    """As AWD-LSTM's wrapper does."""
    raw = lstm.weight_hh_l0
    del lstm.weight_hh_l0
    lstm.register_parameter("weight_hh_l0_raw", raw)
    lstm.weight_hh_l0 = nn.functional.dropout(raw, 0.5)


def no_parameter_in_its_place(lstm):
    """As fastai's WeightDropout does."""
    lstm._parameters["weight_hh_l0"] = nn.functional.dropout(lstm.weight_hh_l0, 0.5)


def method(name):
    def alter(lstm):
        found = getattr(type(lstm), name)
        setattr(lstm, name, types.MethodType(lambda self, *args: found(self, *args), lstm))

    return alter


def set_attribute(name, value):
    return lambda lstm: setattr(lstm, name, value)


def extended_class(lstm):
    parametrize.register_parametrization(lstm, "bias_ih_l0", nn.Identity())
    type(lstm).forward = lambda self, x, hx=None: (2 * x, hx)


class Noop:
    def __call__(self, *args):
        return None


ALTERATIONS = {
    "forward": (method("forward"), "its forward is not that of LSTM"),
    "another's forward": (
        lambda lstm: setattr(lstm, "forward", nn.LSTM(5, 7, 2).forward),
        "its forward is not that of LSTM",
    ),
    "accelerate": (wrap_forward, "its forward is not that of LSTM"),
    "flatten_parameters": (method("flatten_parameters"), "its flatten_parameters is not"),
    "check_input": (method("check_input"), "its check_input is not that of LSTM"),
    "state_dict": (method("state_dict"), "its state_dict is not that of LSTM"),
    "extended class": (extended_class, "its forward is not that of LSTM"),
    "weight_norm": (old_weight_norm, "WeightNorm computes its weights .*remove_weight_norm"),
    "spectral_norm": (old_spectral_norm, "SpectralNorm computes its weights"),
    "torch's prune": (torch_pruned, "L1Unstructured computes its weights .*prune.remove"),
    "weight drop": (weight_drop, "weight_hh_l0 is no parameter of it"),
    "fastai": (no_parameter_in_its_place, "weight_hh_l0 is no parameter of it"),
    "plain tensor": (as_plain_tensor, "weight_hh_l0 is no parameter of it"),
    "weight missing": (lambda lstm: delattr(lstm, "weight_hh_l0"), "weight_hh_l0 is no parameter"),
    "bias None": (set_attribute("bias_hh_l0", None), "bias_hh_l0 is no parameter of it"),
    "more parameters": (
        lambda lstm: lstm.register_parameter("h0", nn.Parameter(torch.zeros(7))),
        "it has h0, which LSTM does not have",
    ),
    "buffer": (
        lambda lstm: lstm.register_buffer("count", torch.zeros(1)),
        "it has count, which LSTM does not have",
    ),
    "module": (
        lambda lstm: lstm.add_module("activation_post_process", nn.Identity()),
        "it has activation_post_process, which LSTM does not have",
    ),
    "fewer layers": (set_attribute("num_layers", 1), "it has weight_ih_l1, which LSTM does not"),
    "more layers": (set_attribute("num_layers", 3), "weight_ih_l2 is no parameter of it"),
    "state_dict hook": (
        lambda lstm: lstm.register_state_dict_post_hook(lambda *args: None),
        "the hook .*lambda.* works on its state_dict",
    ),
    "state_dict pre-hook": (
        lambda lstm: lstm.register_state_dict_pre_hook(Noop()),
        "the hook Noop works on its state_dict",
    ),
    "load_state_dict hook": (
        lambda lstm: lstm.register_load_state_dict_post_hook(lambda *args: None),
        "the hook .*lambda.* works on its state_dict",
    ),
    "load_state_dict pre-hook": (
        lambda lstm: lstm.register_load_state_dict_pre_hook(lambda *args: None),
        "the hook .*lambda.* works on its state_dict",
    ),
    "hook with itself": (
        lambda lstm: lstm.register_forward_hook(functools.partial(print, lstm)),
        "the hook partial holds the module itself",
    ),
}


def altered(name):
    """An nn.LSTM of two layers with the alteration."""
    lstm = nn.LSTM(5, 7, 2)
    ALTERATIONS[name][0](lstm)
    return lstm


# ---- weights that cannot be read ----


class Wrapped(torch.Tensor):
    """As a DTensor or one of torchao's is: what its memory holds is not what it means."""


def replace_weight(make):
    def alter(lstm):
        lstm.weight_hh_l1 = nn.Parameter(make(lstm.weight_hh_l1.detach()), requires_grad=False)

    return alter


def with_value(value):
    def alter(lstm):
        lstm.weight_hh_l1.data[3, 2] = value

    return alter


class Taller(nn.Module):
    def forward(self, weight):
        return torch.cat([weight, weight])


BAD_WEIGHTS = {
    "nan": (with_value(torch.nan), "weight_hh_l1: values must be finite"),
    "inf": (with_value(-torch.inf), "weight_hh_l1: values must be finite"),
    "narrow": (replace_weight(lambda w: w[:, :-1]), r"weight_hh_l1: size .*\(28, 7\).*\(28, 6\)"),
    "flat": (replace_weight(lambda w: w.flatten()), r"weight_hh_l1: size mismatch: .*\(196,\)"),
    "no rows": (replace_weight(lambda w: w[:0]), r"weight_hh_l1: size mismatch: .*\(0, 7\)"),
    "integers": (replace_weight(lambda w: w.int()), "weight_hh_l1: expected dtype float"),
    "complex": (replace_weight(lambda w: w + 1j), "weight_hh_l1: expected dtype float"),
    "sparse": (replace_weight(torch.Tensor.to_sparse), "weight_hh_l1: layout torch.sparse_coo"),
    "subclass": (
        replace_weight(lambda w: w.as_subclass(Wrapped)),
        "weight_hh_l1: a Wrapped, no plain tensor",
    ),
    "meta": (lambda lstm: lstm.to("meta"), "weight_ih_l0: on the meta device"),
    "one on meta": (
        replace_weight(lambda w: w.to("meta")),
        "weight_hh_l1: on the meta device: load its values first",
    ),
}


def with_bad_weights(name):
    """An nn.LSTM of two layers whose weights nobody can read."""
    lstm = nn.LSTM(5, 7, 2)
    BAD_WEIGHTS[name][0](lstm)
    return lstm


class Held(nn.Module):
    """A model with the LSTM in two places, after a plain one."""

    def __init__(self, lstm):
        super().__init__()
        self.first = nn.LSTM(5, 7)
        self.block = nn.ModuleDict({"rnn": lstm})
        self.again = lstm

    def forward(self, x):
        return self.block["rnn"](x)[0]
