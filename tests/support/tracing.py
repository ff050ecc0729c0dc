"""Arguments of the op and a model, for torch's tracers."""

import torch
from torch import nn


def op_arguments(case, x=None, state=(None, None), lengths=None):
    return (
        case.x() if x is None else x,
        *state,
        lengths,
        case.fast().packed,
        case.shape(),
        case.batch_first,
    )


PACKED = torch.randn(9, 9), torch.tensor([3, 3, 2, 1])


class Model(nn.Module):
    def __init__(self, lstm):
        super().__init__()
        self.lstm = lstm
        self.head = nn.Linear(lstm.hidden_size, 4)

    def forward(self, x):
        y, state = self.lstm(x)
        return self.head(y), state
