"""What makes the LSTMs of a model smaller: converting, pruning."""
