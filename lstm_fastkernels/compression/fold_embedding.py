"""Token ids in: an embedding and the input weights of the LSTM that reads it, as one table."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import type_before_parametrizations

from lstm_fastkernels.modules.float_lstm import (
    copy_hooks,
    fault_of,
    life_fault,
    prepared_fault,
    tensor_fault,
    weights_of,
)
from lstm_fastkernels.modules.low_rank import low_rank_factors
from lstm_fastkernels.modules.lstm import FastLSTM, FastQuantLSTM, FastSparseLSTM, arguments_of
from lstm_fastkernels.weights.checks import Kind
from lstm_fastkernels.weights.shape import MAX_SIZE
from lstm_fastkernels.weights.structures import LayoutConfig

_PRECISIONS = {torch.float32: "table", torch.float16: "table_float16"}


@torch.no_grad()
def fold_embedding(
    embedding: nn.Embedding | int | None,
    lstm: nn.LSTM | FastLSTM,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> FastQuantLSTM:
    """An LSTM that takes token ids, in the place of an embedding and the LSTM that reads it.

    embedding: an nn.Embedding; or, for one-hot input, the number of classes or None. lstm: an
    nn.LSTM, whose other matrices are compressed as FastQuantLSTM.from_float does, with its options;
    or a FastQuantLSTM or FastSparseLSTM, whose others are taken as they are. Neither is changed.

    The first layer's weight_ih, in each direction, becomes a table [V, 4H] with a row for each of V
    ids: weight_ih times its embedding, computed in float64 and rounded to float32; dtype
    torch.float16 halves it, at 0.05% of an entry or, if that is more, 3e-8. padding_idx is an id
    like others; max_norm is applied.

    Raises TypeError for other classes; ValueError for an embedding that has hooks, values that are
    not finite or another size than the LSTM reads, for more than 65,535 ids, entries beyond the
    range of dtype, hooks on the LSTM's input, options where it is a fast one, and as from_float
    does.
    """
    if dtype not in _PRECISIONS:
        raise ValueError(f"dtype must be one of {list(_PRECISIONS)}, got {dtype}")
    if fault := _lstm_fault(lstm):
        raise ValueError(fault)
    if options and not isinstance(lstm, nn.LSTM):
        raise ValueError(f"{min(options)} is an option for nn.LSTM, got a {type(lstm).__name__}")
    embedded = _embedded(embedding, lstm.input_size)
    floats = weights_of(lstm) if isinstance(lstm, nn.LSTM) else lstm.canonical().to_float()
    tables = [name for name in floats if name.startswith("weight_ih_l0")]
    for name in tables:
        floats[name] = _products(floats[name], embedded, dtype)
    sizes = arguments_of(lstm) | {"input_size": floats[tables[0]].shape[1]}
    precision = dict.fromkeys(tables, _PRECISIONS[dtype])
    if isinstance(lstm, nn.LSTM):
        folded = _from_float(lstm, floats, sizes, precision, **options)
    else:
        folded = _from_fast(lstm, floats, sizes, precision)
    copy_hooks(lstm, folded)
    return folded.train(lstm.training)


def _lstm_fault(lstm: nn.Module) -> str | None:
    """Why an LSTM cannot be given ids; TypeError for another class."""
    is_float = type_before_parametrizations(lstm) is nn.LSTM
    if not is_float and type(lstm) not in (FastQuantLSTM, FastSparseLSTM):
        raise TypeError(
            "fold_embedding expects an nn.LSTM, FastQuantLSTM or FastSparseLSTM, "
            f"got {type(lstm).__name__}"
        )
    if isinstance(lstm, FastLSTM) and lstm.takes_ids:
        return "this LSTM takes token ids already"
    if fault := (fault_of(lstm) or prepared_fault(lstm)) if is_float else life_fault(lstm):
        return fault
    return "it has hooks on its input, which would be ids" if lstm._forward_pre_hooks else None


def _embedded(embedding: object, input_size: int) -> Tensor | None:
    """What the LSTM reads for each id, [V, input_size]; None for one-hot rows."""
    if embedding is None:
        return None
    if type(embedding) is int:
        if embedding != input_size:
            raise ValueError(f"the LSTM reads {input_size} columns, not {embedding} classes")
        return None
    if type(embedding) is not nn.Embedding:
        raise TypeError(f"expected an nn.Embedding, got {type(embedding).__name__}")
    if fault := life_fault(embedding) or tensor_fault(
        embedding.weight, Kind(None, (None, input_size))
    ):
        raise ValueError(f"embedding: {fault}")
    if embedding._forward_hooks or embedding._forward_pre_hooks:
        raise ValueError("embedding: it has hooks, which would not run any more: remove them first")
    weight = embedding.weight.detach().cpu().clone()  # max_norm writes to it
    ids = torch.arange(len(weight))
    return F.embedding(ids, weight, None, embedding.max_norm, embedding.norm_type)


def _products(weight: Tensor, embedded: Tensor | None, dtype: torch.dtype) -> Tensor:
    """weight_ih [4H, V] of an LSTM that reads one-hot rows, float32."""
    product = weight.float()
    if embedded is not None:
        product = (weight.cpu().double() @ embedded.double().T).float().to(weight.device)
    if product.shape[1] > MAX_SIZE:
        raise ValueError(f"there can be at most {MAX_SIZE} token ids, got {product.shape[1]}")
    if not product.to(dtype).isfinite().all():
        raise ValueError(f"weight_ih times the embedding has entries that {dtype} cannot hold")
    return product


def _from_float(
    lstm: nn.LSTM,
    floats: dict[str, Tensor],
    sizes: dict[str, Any],
    tables: dict[str, str],
    precision: dict[str, str] | None = None,
    **options: Any,
) -> FastQuantLSTM:
    folded = FastQuantLSTM(
        **sizes, device="meta", precision={**(precision or {}), **tables}, **options
    )
    factors = {name: uv for name, uv in low_rank_factors(lstm).items() if name not in tables}
    layout = LayoutConfig(folded.layout, folded.block_size)
    canonical = folded.canonical().spec.compress(floats, layout, factors)
    folded.take_canonical(canonical.tensors)
    return folded


def _from_fast(
    lstm: FastLSTM, floats: dict[str, Tensor], sizes: dict[str, Any], tables: dict[str, str]
) -> FastQuantLSTM:
    folded = FastQuantLSTM(
        **sizes,
        device="meta",
        precision={**lstm.precision, **tables},
        pair_safe=lstm.pair_safe,
        group_size=lstm.group_size,
        layout="auto" if lstm.layout == "block_sparse" else lstm.layout,  # tables have no blocks
        block_size=lstm.block_size,
        keep=lstm.keep,
    )
    spec = folded.canonical().spec
    tensors = dict(lstm.canonical().tensors)
    for name in tables:
        parts = lstm.canonical().parts(name)
        tensors = {key: t for key, t in tensors.items() if key.removeprefix(name) not in parts}
        tensors |= {name + end: t for end, t in spec.format_of(name).compress(floats[name]).items()}
    folded.take_canonical(tensors)
    return folded
