"""Batches for models of four inputs, and how near such a model is to the one it was made of."""

import copy

import torch

import lstm_fastkernels as lfk

T, B = 24, 8


def batches(count=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [2 * torch.randn(T, B, 4, generator=generator) for _ in range(count)]


@torch.no_grad()
def snr(model, reference, x):
    """Of the first output against that of `reference` in float64, in dB. Both are in eval mode."""
    exact = copy.deepcopy(reference).eval().double()(x.double())[0]
    noise = model.eval()(x)[0].double() - exact
    return float(10 * torch.log10(exact.square().sum() / noise.square().sum()))


def quantized(model, *args, **options):
    """A quantized copy, and the report."""
    model = copy.deepcopy(model)
    return model, lfk.quantize_(model, *args, **options)
