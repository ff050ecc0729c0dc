"""Calibration: what data does in the LSTMs of a model."""

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from tqdm.auto import tqdm

from lstm_fastkernels.compression.calibration.calls import Call, Recording, call_of
from lstm_fastkernels.compression.calibration.moments import FloatLayers, Moments
from lstm_fastkernels.compression.lstms import label_of
from lstm_fastkernels.modules.float_lstm import shape_of, weights_as_lstm

# Of so many batches one is held out: the second, and every one so much later.
_HELD_OUT_OF = 4
# Numbers kept of held-out calls, for each LSTM: 256 MB.
_MOST_KEPT = 1 << 26


class Observations:
    """What was seen of an LSTM: moments of what its matrices multiply, and held-out calls."""

    def __init__(self, lstm: nn.Module) -> None:
        self.shape = shape_of(lstm)
        self.floats = weights_as_lstm(lstm)
        self._layers = FloatLayers(self.shape, self.floats)
        self.moments = {
            name: Moments(columns) for name, (_, columns) in self.shape.matrices.items()
        }
        self._held_out = Recording()
        self._kept = 0

    @property
    def held_out(self) -> list[Call]:
        return self._held_out.calls()

    def add(self, call: Call) -> None:
        for name, rows in self._layers.operands(call):
            self.moments[name].add(rows)

    def hold_out(self, call: Call) -> None:
        """Keeps a call to measure on; calls beyond what memory is given to are left out."""
        size = call.x.numel() + call.y.numel()
        if self._kept and self._kept + size > _MOST_KEPT:
            return
        self._kept += size
        self._held_out.add(call)


def observe(
    model: nn.Module, lstms: Mapping[nn.Module, str], batches: Iterable[Any] | None
) -> dict[nn.Module, Observations]:
    """Runs the model on the batches and observes these of its modules, named by the mapping;
    nothing is observed without batches.

    Raises ValueError, naming the LSTM, for one that gets no input and for input that is not finite.
    """
    if batches is None:
        return {}
    found = {lstm: Observations(lstm) for lstm in lstms}
    with contextlib.closing(calls_of(model, lstms, batches)) as by_batch:
        for number, calls in enumerate(by_batch):
            for lstm, call in calls:
                if number % _HELD_OUT_OF == 1:
                    found[lstm].hold_out(call)
                else:
                    found[lstm].add(call)
    for lstm, seen in found.items():
        if not any(moments.count for moments in seen.moments.values()):
            raise ValueError(f"{label_of(lstms[lstm])} got no input from the calibration batches")
    return found


def calls_of(
    model: nn.Module, modules: Mapping[nn.Module, str], batches: Iterable[Any]
) -> Generator[list[tuple[nn.Module, Call]]]:
    """For each batch, the calls of these modules, in evaluation mode and without gradients.

    A batch is what the model is called with: a tuple or list of arguments, a dict of keyword
    arguments, or the one argument. Until it is closed, the model stays in evaluation mode. Raises
    TypeError for one batch in the place of several, ValueError for values that are not finite.
    """
    if isinstance(batches, Tensor | PackedSequence | Mapping):
        raise TypeError(
            f"expected an iterable of batches, got a {type(batches).__name__}: if it is one batch, "
            "give [batch]"
        )
    calls: list[tuple[nn.Module, Call]] = []

    def take(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        call = call_of(module, args, kwargs, output)
        if not (call.x.isfinite().all() and call.y.isfinite().all()):
            raise ValueError(f"{label_of(modules[module])} got values that are not finite")
        calls.append((module, call))

    with contextlib.ExitStack() as stack:
        stack.enter_context(evaluation(model))
        for module in modules:
            stack.enter_context(_hooked(module, take))
        for batch in tqdm(batches, desc="calibrating", unit="batch", disable=None):
            with torch.no_grad():
                run(model, batch)
            yield calls
            calls.clear()


def run(model: nn.Module, batch: Any) -> Any:
    if isinstance(batch, dict):
        return model(**batch)
    if isinstance(batch, tuple | list) and not isinstance(batch, PackedSequence):
        return model(*batch)
    return model(batch)


@contextlib.contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode, and afterwards in the one it had."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextlib.contextmanager
def _hooked(module: nn.Module, hook: Callable[..., None]) -> Iterator[None]:
    handle = module.register_forward_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
