"""Pruning, quantization-aware training and distillation at once on two ranks, which must agree."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import lstm_fastkernels as lfk
from pruning_cases import Model, adam, batch
from ranks import on_two_ranks

BASE = lfk.Int8Config(precision={"weight_hh_l0": "int16"})
SCHEDULE = lfk.CubicSchedule(0, 4, initial=0.5)


def compressed(scales, rank):
    """A model with masks, factors and rounding on, ready to be wrapped; ranks begin differently."""
    model = Model()
    with torch.no_grad():
        model.cell.weight_hh.add_(rank * torch.randn(28, 7))
    lfk.factorize_(model, lfk.LowRankConfig(rank={"weight_ih_l1": 3}))
    zeros = lfk.PruneConfig({"weight_hh": 0.6}, importance="taylor", schedule=SCHEDULE)
    pruner = lfk.prune_(model, zeros)
    calibration = [batch(100 + rank)[0]]  # of its own on each rank
    lfk.quantize_(model, lfk.QATConfig(BASE, "prepare", scales), calibration=calibration)
    return model, pruner


def logits(z):
    return torch.cat((torch.zeros_like(z), z), 1)


def train_rank(rank):
    found = []
    for scales in ("learned", "followed"):
        teacher = Model().eval()
        model, pruner = compressed(scales, rank)
        parallel = DistributedDataParallel(model)
        optimizer = adam(model)
        for step in range(rank, 16, 2):  # other data on each rank
            x, y = batch(step)
            with torch.no_grad():
                expected = logits(teacher(x))
            labels = (y[:, 0] > 0).long()
            # Two forwards before one backward, between which DDP sends its buffers around.
            loss = lfk.distillation_loss(logits(parallel(x)), expected, labels)
            loss = loss + 0.1 * parallel(x.flip(1)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            pruner.step()
        found.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        with pytest.raises(ValueError, match=r"module\.layers\.1 is wrapped by Dist"):
            lfk.quantize_(parallel, lfk.QATConfig(BASE, "convert"))
        before = model.eval()(batch(50)[0])
        lfk.quantize_(model, lfk.QATConfig(BASE, "convert"))
        assert torch.equal(model(batch(50)[0]), before)
        found.append(copy.deepcopy(model.state_dict()))
        found.append({"pruner": torch.tensor(pruner_steps(pruner))})
    late = DistributedDataParallel(nn.Sequential(nn.LSTM(9, 7)))
    with pytest.raises(ValueError, match=r"module\.0 is wrapped by Dist"):
        lfk.quantize_(late, lfk.QATConfig(BASE, "prepare"))
    return found


def pruner_steps(pruner):
    return int(repr(pruner).split("step ")[1].split(",")[0])


@pytest.mark.slow
def test_ranks_agree_bit_for_bit(tmp_path):
    first, second = on_two_ranks(train_rank, tmp_path)
    begun, _ = compressed("learned", 0)
    assert not torch.equal(first[0]["cell.weight_ih"], begun.state_dict()["cell.weight_ih"])
    for of_first, of_second in zip(first, second, strict=True):
        assert of_first.keys() == of_second.keys()
        for name, tensor in of_first.items():
            assert torch.equal(tensor, of_second[name]), name
    # The cell is called once, from zeros.
    gains = [t for name, t in first[0].items() if name.endswith("gain") and "cell" not in name]
    assert len(gains) == 5
    assert all(gain.any() for gain in gains)
    assert (first[0]["layers.1.weight_hh_l1"] == 0).float().mean() > 0.5
