"""What real input does in the LSTMs of a model, for every method that compresses with data."""
