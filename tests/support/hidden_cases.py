"""Models in float64 for prune_hidden_, and units of theirs that nothing reads."""

import numpy as np
import torch
from torch import nn

# Sums of a few hundred float64 products in another order, through a few saturating steps.
close = {"rtol": 0, "atol": 1e-12}


def same(actual, expected):
    torch.testing.assert_close(actual, expected, **close)


class Tagger(nn.Module):
    """An LSTM or a StackedLSTM with a head that reads its output."""

    def __init__(self, lstm, out_features=5):
        super().__init__()
        self.lstm = lstm
        self.head = nn.Linear(output_width(lstm), out_features, dtype=torch.float64)

    def forward(self, x, hx=None):
        y, state = self.lstm(x, hx)
        return self.head(y), state


def output_width(lstm):
    return (1 + lstm.bidirectional) * (lstm.proj_size or lstm.hidden_size)


def double_lstm(*sizes, seed=0, **options):
    torch.manual_seed(seed)
    return nn.LSTM(*sizes, dtype=torch.float64, **options)


def tagger(*sizes, seed=0, **options):
    return Tagger(double_lstm(*sizes, seed=seed, **options))


def directions(lstm):
    return ["", "_reverse"][: 1 + lstm.bidirectional]


@torch.no_grad()
def kill(lstm, dead, head=None):
    """Zeroes what the units dead[layer][direction] give, shrinks what they take in."""
    H = lstm.hidden_size
    for layer, runs in enumerate(dead):
        for d, units in enumerate(runs):
            suffix = f"_l{layer}{directions(lstm)[d]}"
            rows = [gate * H + unit for gate in range(4) for unit in units]
            getattr(lstm, f"weight_ih{suffix}")[rows] *= 1e-6
            getattr(lstm, f"weight_hh{suffix}")[rows] *= 1e-6
            if lstm.proj_size:
                getattr(lstm, f"weight_hr{suffix}")[:, units] = 0
                continue
            getattr(lstm, f"weight_hh{suffix}")[:, units] = 0
            columns = [d * H + unit for unit in units]
            if layer + 1 < lstm.num_layers:
                for above in directions(lstm):
                    getattr(lstm, f"weight_ih_l{layer + 1}{above}")[:, columns] = 0
            elif head is not None:
                head.weight[:, columns] = 0


def random_dead(lstm, counts, seed):
    """counts[layer] units of each direction, not the same ones."""
    generator = np.random.default_rng(seed)
    return [
        [sorted(generator.permutation(lstm.hidden_size)[:count]) for _ in directions(lstm)]
        for count in counts
    ]


def kept_states(lstm, dead, states):
    """Per layer, what the states of the unpruned LSTM hold for the units that stay."""
    D, H = len(directions(lstm)), lstm.hidden_size
    layers = []
    for layer, runs in enumerate(dead):
        rows = []
        for d, units in enumerate(runs):
            kept = [unit for unit in range(H) if unit not in units]
            row = states[layer * D + d]
            rows.append(row[..., kept] if states.shape[-1] == H else row)
        layers.append(torch.stack(rows))
    return layers
