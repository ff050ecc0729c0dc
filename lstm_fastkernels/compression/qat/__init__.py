"""Quantization-aware training: nn.LSTMs that compute as their quantized twins will."""
