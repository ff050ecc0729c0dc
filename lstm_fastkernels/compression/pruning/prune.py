"""Pruning the weights of nn.LSTM and nn.LSTMCell in place: putting masks on and taking them off."""

from collections.abc import Mapping

from torch import nn

from lstm_fastkernels.compression.lstms import (
    SHARDING,
    FilterFn,
    check_matrices,
    check_outermost,
    check_unwrapped,
    find_lstms,
    join,
    label_of,
    parameter_owners,
)
from lstm_fastkernels.compression.pruning import masking
from lstm_fastkernels.compression.pruning.config import PruneConfig
from lstm_fastkernels.compression.pruning.matrix import PrunedMatrix
from lstm_fastkernels.compression.pruning.pruner import Pruner
from lstm_fastkernels.modules.float_lstm import matrix_names


def prune_(
    model: nn.Module,
    config: PruneConfig,
    *,
    filter_fn: FilterFn | None = None,
) -> Pruner:
    """Puts masks on the nn.LSTMs and nn.LSTMCells of a model, in place; the Pruner sets them.

    filter_fn(module, name) picks the modules; name is the dotted name in the model. Subclasses of
    the two are left alone.

    Without a schedule magnitude masks are set at once, the others at the first `Pruner.step()`,
    with that step's gradients; with a schedule all are renewed at `step()` after `step()`. Masked
    weights are exactly zero in every forward, whatever an optimizer does to the values behind the
    masks: these stay, are pruned afresh at each renewal and may come back if they have become more
    important than others. "movement" also trains them, straight through the mask.

    Parameters stay the same objects, so an optimizer may be made before. `state_dict` and
    `load_state_dict` keep the float module's keys, with zeros where weights are masked.
    remove_pruning_ makes the masks permanent, which pickling the model takes.

    Raises ValueError, and changes nothing, if no matrix is found, if a key of config.sparsity means
    none, or for a matrix that is already pruned or otherwise parametrized, that is no parameter of
    its module or shared with another, whose weights are on the meta device or not finite, or that
    FSDP has sharded.

    Under DistributedDataParallel it may come before or after the wrapping: wrapping gives all ranks
    the parameters and masks of the first.
    """
    lstms = list(find_lstms(model, filter_fn))
    check_unwrapped(model, [module for _, module in lstms], SHARDING)
    owners = parameter_owners(model)
    found: list[tuple[str, nn.Module, dict[str, list[float]]]] = []
    for name, module in lstms:
        if masking.masked_names(module):
            raise ValueError(f"{label_of(name)} is already being pruned")
        shares = {
            matrix: share
            for matrix in matrix_names(module)
            if (share := config.shares(matrix)) is not None
        }
        if shares:
            check_matrices(module, name, shares, owners)
            found.append((name, module, shares))
    _check_keys(config, [matrix for _, lstm in lstms for matrix in matrix_names(lstm)])
    if not found:
        raise ValueError("found no nn.LSTM or nn.LSTMCell to prune")
    matrices: dict[str, PrunedMatrix] = {}
    for name, module, shares in found:
        masking.put_on(module, list(shares), straight_through=config.importance == "movement")
        for matrix, share in shares.items():
            matrices[join(name, matrix)] = PrunedMatrix(module, matrix, share)
    return Pruner(model, config, matrices)


def _check_keys(config: PruneConfig, matrices: list[str]) -> None:
    if isinstance(config.sparsity, Mapping) and matrices:
        for key in config.sparsity:
            name = key.split(".")[0]
            if name not in matrices and name not in {m[: len("weight_ih")] for m in matrices}:
                raise ValueError(f"sparsity key {key!r} means no matrix of the model")


def remove_pruning_(model: nn.Module) -> None:
    """Makes the masks of prune_ permanent, in place: plain modules with zeros in their weights.

    Parameters stay the same objects; what was behind the masks is gone, and nothing keeps further
    training from moving the zeros. The Pruner has ended. Raises ValueError, and changes nothing, if
    nothing in the model is being pruned or if a masked matrix has another parametrization.
    """
    pruned = {module: name for name, module in find_lstms(model) if masking.masked_names(module)}
    if not pruned:
        raise ValueError("nothing in the model is being pruned")
    for module, name in pruned.items():
        check_outermost(module, name, masking.masked_names(module), "mask")
    for module in pruned:
        masking.take_off(module)
