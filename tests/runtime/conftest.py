import pytest

import lstm_fastkernels as lfk
from c_interface import Handle
from lstm_fastkernels.runtime import LSTM


@pytest.fixture
def load(path):
    """The runtime's LSTM of a fast module."""

    def load(fast):
        lfk.save_file(fast, path)
        return LSTM.load(path)

    return load


@pytest.fixture
def load_c(path):
    """The C interface's LSTM of a fast module."""

    def load(fast):
        lfk.save_file(fast, path)
        return Handle("lstm_load", Handle("file_open", bytes(path)), b"")

    return load
