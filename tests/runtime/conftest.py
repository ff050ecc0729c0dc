import pytest

import lstm_fastkernels as lfk
from lstm_fastkernels.runtime import LSTM


@pytest.fixture
def load(path):
    """The runtime's LSTM of a fast module."""

    def load(fast):
        lfk.save_file(fast, path)
        return LSTM.load(path)

    return load
