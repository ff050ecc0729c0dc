"""What the LSTMs of a model return for batches, and how far that is from what it should be."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from tqdm import tqdm

# For each LSTM, by its dotted name, the outputs of its calls.
Outputs = dict[str, list[Tensor]]


def run_batches(model: nn.Module, batches: Iterable[Any], doing: str) -> None:
    """Calls the model in evaluation mode with each batch, which is one argument, a tuple or list of
    arguments, or a mapping of keyword arguments. On a terminal a progress bar says what it does."""
    with torch.no_grad(), _evaluation(model):
        for batch in tqdm(batches, doing, disable=None, leave=False):
            if isinstance(batch, Mapping):
                model(**batch)
            elif isinstance(batch, tuple | list) and not isinstance(batch, PackedSequence):
                model(*batch)
            else:
                model(batch)


@contextmanager
def _evaluation(model: nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def lstm_outputs(
    model: nn.Module, names: Collection[str], batches: Iterable[Any], doing: str
) -> Outputs:
    """Runs the model; y of nn.LSTM's and h of nn.LSTMCell's calls, float64 on the CPU."""
    modules = dict(model.named_modules())
    found: Outputs = {name: [] for name in names}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, outputs: Any) -> None:
            y = outputs[0].data if isinstance(outputs[0], PackedSequence) else outputs[0]
            found[name].append(y.detach().cpu().double())

        return hook

    hooks = [modules[name].register_forward_hook(keep(name)) for name in names]
    try:
        run_batches(model, batches, doing)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def sqnr(outputs: Outputs, exact: Outputs) -> dict[str, float]:
    """The signal to quantization noise ratio of each LSTM's outputs in dB.

    Raises ValueError where the calls are not the same.
    """
    ratios = {}
    for name, signals in exact.items():
        if [y.shape for y in outputs[name]] != [y.shape for y in signals]:
            raise ValueError(f"{name}: the models do not call it alike, so that outputs compare")
        signal = sum(float(y.square().sum()) for y in signals)
        noise = sum(
            float((y - other).square().sum())
            for y, other in zip(signals, outputs[name], strict=True)
        )
        ratios[name] = 10 * math.log10(signal / noise) if signal and noise else math.inf
        if math.isnan(noise):
            ratios[name] = -math.inf
    return ratios
