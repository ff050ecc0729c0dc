"""Where compression hurts: each part of a model's LSTMs compressed alone."""
