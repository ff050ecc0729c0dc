"""Low-rank factorization of the weights of float LSTMs."""
