"""LSTMs that take token ids, and the ids for them."""

import torch
from torch import nn

import lstm_fastkernels as lfk
from cases import Case, prune_blocks_

CLASSES = 23

# Options for the other matrices, and the table's dtype.
OTHERS = {
    "int8": ({}, torch.float32),
    "int8, halves": ({}, torch.float16),
    "int16": ({"activations": "int16"}, torch.float32),
    "int4": ({"activations": "int4", "group_size": 32}, torch.float32),
    "float32": ({"precision": {"*": "float32"}}, torch.float32),
    "blocks": ({}, torch.float16),
    "low rank": ({}, torch.float32),
}

# T=70 takes several of the chunks in which input parts are formed.
STACKS = [
    Case(7, 9, T=5, B=1),
    Case(12, 31, 2, T=70, B=3),
    Case(5, 129, proj_size=13, T=6, B=9, bias=False),
    Case(9, 8, 2, bidirectional=True, proj_size=7, T=6, B=5, batch_first=True),
]


def embedding_of(case):
    torch.manual_seed(case.seed + 9)
    return nn.Embedding(CLASSES, case.input_size)


def lstm_of(case, others):
    """The float LSTM: pruned in blocks, or with factors, where the name of the others says so."""
    if others == "blocks":
        lstm = case.lstm()
        for name, parameter in lstm.named_parameters():
            if name.startswith("weight"):
                prune_blocks_(parameter.data, name, 0.3, torch.Generator().manual_seed(1))
        return lstm
    lstm = case.lstm()
    if others == "low rank":
        lfk.factorize_(lstm, lfk.LowRankConfig(rank=3))
    return lstm


def folded(case, others="int8"):
    options, dtype = OTHERS[others]
    return lfk.fold_embedding(embedding_of(case), lstm_of(case, others), dtype, **options)


def ids_of(case, dtype=torch.int64):
    generator = torch.Generator().manual_seed(case.seed + 1)
    first = (case.B, case.T) if case.batch_first else (case.T, case.B)
    return torch.randint(0, CLASSES, first, generator=generator, dtype=dtype)


def one_hot_twin(fast):
    """The same LSTM with float32 input weights, to which one-hot rows are given."""
    options = {"precision": {**fast.precision}, "layout": "dense"}
    options["precision"] |= {
        name: "float32" for name, found in fast.precision.items() if "table" in found
    }
    sizes = {
        name: getattr(fast, name)
        for name in (
            *("input_size", "hidden_size", "num_layers", "bias", "batch_first"),
            *("bidirectional", "proj_size", "group_size"),
        )
    }
    twin = lfk.FastQuantLSTM(**sizes, **options)
    tensors = {
        name.removesuffix("_table"): t.float().T if name.endswith("_table") else t
        for name, t in fast.canonical().tensors.items()
    }
    twin.take_canonical(tensors)
    return twin


def one_hot(ids):
    return nn.functional.one_hot(ids.long(), CLASSES).float()
