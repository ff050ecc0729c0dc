"""What the tests of save_file and load_file share."""

import pytest
import torch

from malformed.parts import KEY as KEY


def same_tensors(actual, expected):
    assert list(actual) == list(expected)
    for name, tensor in actual.items():
        assert tensor.dtype == expected[name].dtype, name
        assert torch.equal(tensor, expected[name]), name


def refuse(call, path, *words, kind=ValueError):
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert path is None or message.startswith(f"{path}: "), message
    for word in words:
        assert word in message, f"{word!r} is not in: {message}"
