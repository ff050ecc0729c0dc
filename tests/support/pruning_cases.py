"""LSTMs to prune, a small model and task to train, and training step by step."""

import torch
from torch import nn

import lstm_fastkernels as lfk
from cases import Case, flat

CASES = [
    Case(9, 31),
    Case(1, 1),
    Case(9, 7, num_layers=3, batch_first=True),
    Case(7, 9, num_layers=2, bidirectional=True, bias=False),
    Case(9, 31, num_layers=2, bidirectional=True, proj_size=8),
]
HALF = lfk.PruneConfig(0.5)


class Model(nn.Module):
    """An LSTM and a cell, the one inside a Sequential."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(5, 5), nn.LSTM(5, 9, 2, batch_first=True))
        self.cell = nn.LSTMCell(9, 7)
        self.head = nn.Linear(7, 1)

    def forward(self, x):
        y, _ = self.layers(x)
        return self.head(self.cell(y[:, -1])[0])


def batch(step, size=16):
    x = torch.randn(size, 6, 5, generator=torch.Generator().manual_seed(step))
    return x, x[:, :, 0].sum(1, keepdim=True).sin()


def train(model, optimizer, pruner, steps):
    losses = []
    for step in steps:
        x, y = batch(step)
        loss = nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if pruner is not None:
            pruner.step()
        losses.append(loss.item())
    return losses


def training_steps(lstm, case, twin_of):
    """Yields, with gradients in both, the plain LSTM with the weights that `lstm` should run with:
    outputs must be equal, and other ones in each step. The caller steps its optimizer."""
    x, hx = case.x(), case.state()
    previous = None
    for _ in range(3):
        result = lstm(x, hx)
        plain = twin_of(lstm, case)
        expected = plain(x, hx)
        for actual, wanted in zip(flat(result), flat(expected), strict=True):
            assert torch.equal(actual, wanted)
        assert previous is None or not torch.equal(result[0], previous)
        previous = result[0]

        lstm.zero_grad()
        result[0].square().sum().backward()
        expected[0].square().sum().backward()
        yield plain


def adam(model):
    return torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)


def masked_weights(lstm):
    """name -> whole weight * mask, for each masked matrix."""
    return {name: pair.original * pair[0].mask for name, pair in lstm.parametrizations.items()}
