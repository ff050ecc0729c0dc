"""Files that load_file refuses: the message begins with the path and says what is wrong."""

import json
import os
import struct

import pytest
from safetensors.torch import save_file as save_tensors
from torch import nn

import lstm_fastkernels as lfk
import malformed
from cases import Case
from io_cases import KEY, refuse

FAST = Case(9, 9).fast()
SPARSE = Case(9, 9, layout="block_sparse", activations="float32").fast()
CELL = Case(9, 9).fast_cell()


def described(lstm):
    """Its configuration as a file has it."""
    options = {
        "class": type(lstm).__name__,
        "input_size": 9,
        "hidden_size": 9,
        "num_layers": 1,
        "bias": True,
        "batch_first": False,
        "dropout": 0.0,
        "bidirectional": False,
        "proj_size": 0,
        "precision": dict.fromkeys(("weight_ih_l0", "weight_hh_l0"), lstm.activations),
        "pair_safe": "auto",
        "group_size": 64,
        "layout": lstm.layout,
        "block_size": [8, 4],
    }
    return {"format_version": 2, "numeric_contract": 2, "lstms": {"": options}}


def write(path, tensors, configuration):
    text = configuration if isinstance(configuration, str) else json.dumps(configuration)
    save_tensors(tensors, path, {KEY: text})


@pytest.mark.parametrize("file", malformed.files(), ids=lambda file: file.name)
def test_malformed_files(path, file):
    path.write_bytes(file.contents)
    refuse(lambda: lfk.load_file(path), path, *file.python)
    refuse(lambda: lfk.load_file(path, keep="packed", mmap=True), path, *file.python)


def test_the_helper_writes_what_is_read(path):
    for lstm in (FAST, SPARSE, CELL):
        write(path, lstm.state_dict(), described(lstm))
        other = lfk.load_file(path)
        assert type(other) is type(lstm)
        lfk.save_file(lstm, path)
        assert repr(lfk.load_file(path)) == repr(other)


def with_header(header, data=b""):
    return struct.pack("<Q", len(header)) + header + data


def test_a_type_that_torch_does_not_have(path):
    header = b'{"a":{"dtype":"F8_E8M0","shape":[1],"data_offsets":[0,1]}}'
    path.write_bytes(with_header(header, b"x"))
    refuse(lambda: lfk.load_file(path), path, "F8_E8M0")


def test_a_shape_that_torch_cannot_have(path):
    shape = f"[0,{2**62},{2**62}]".encode()
    path.write_bytes(with_header(b'{"a":{"dtype":"U8","shape":%s,"data_offsets":[0,0]}}' % shape))
    refuse(lambda: lfk.load_file(path), path, "not a safetensors file")


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_a_float_checkpoint(path, metadata):
    save_tensors(nn.LSTM(9, 9).state_dict(), path, metadata)
    refuse(lambda: lfk.load_file(path), path, KEY, "load_state_dict")


def test_metadata_that_is_null(path):
    path.write_bytes(with_header(b'{"__metadata__":null}'))
    refuse(lambda: lfk.load_file(path), path, KEY, "load_state_dict")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError):
        lfk.load_file(tmp_path / "nowhere")
    with pytest.raises(IsADirectoryError):
        lfk.load_file(tmp_path)
    os.mkfifo(tmp_path / "fifo")  # opened, it would wait for a writer
    for path in (tmp_path / "fifo", "/dev/zero"):
        with pytest.raises(OSError, match=f"not a regular file: '{path}'"):
            lfk.load_file(path)


# The configuration


def test_keys_that_nobody_knows_are_ignored(path):
    configuration = described(FAST)
    configuration["new"] = configuration["lstms"][""]["new"] = {"a": [1, None]}
    write(path, FAST.state_dict(), configuration)
    assert type(lfk.load_file(path)) is lfk.FastQuantLSTM


def test_a_dropout_that_is_written_as_an_integer(path):
    configuration = described(FAST)
    configuration["lstms"][""]["dropout"] = 0
    write(path, FAST.state_dict(), configuration)
    assert type(lfk.load_file(path).dropout) is float


def test_float_weights_are_not_quantized_on_the_way(path):
    """As load_state_dict would; nor do half-precision weights become float32."""
    write(path, nn.LSTM(9, 9).state_dict(), described(FAST))
    refuse(lambda: lfk.load_file(path), path, "lacks", "weight_ih_l0_scale")
    lstm = lfk.FastSparseLSTM(9, 9, bias=False)
    configuration = described(lstm)
    configuration["lstms"][""]["bias"] = False
    write(path, {name: t.half() for name, t in lstm.state_dict().items()}, configuration)
    refuse(lambda: lfk.load_file(path), path, "weight_ih_l0", "float32", "float16")
