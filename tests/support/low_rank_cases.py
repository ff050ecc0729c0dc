"""LSTMs to factorize, and what they compute with."""

import torch

from cases import Case
from lstm_fastkernels.modules.low_rank import low_rank_factors

CASES = [
    Case(9, 31),
    Case(9, 7, num_layers=3, batch_first=True),
    Case(7, 9, num_layers=2, bidirectional=True, bias=False),
    Case(9, 31, num_layers=2, bidirectional=True, proj_size=8),
]


def plain_twin(lstm, case):
    """A plain nn.LSTM with the biases of a factorized one, and the products of its factors."""
    plain = case.lstm()
    factors = low_rank_factors(lstm)
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            parameter.copy_(
                torch.matmul(*factors[name]) if name in factors else getattr(lstm, name)
            )
    return plain
