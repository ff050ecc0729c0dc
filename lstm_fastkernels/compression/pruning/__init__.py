"""Pruning weights, blocks and hidden units of float LSTMs."""
