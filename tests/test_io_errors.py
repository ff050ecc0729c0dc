"""Files that load_file refuses: the message begins with the path and says what is wrong."""

import json
import struct

import pytest
import torch
from safetensors.torch import save_file as save_tensors
from torch import nn

import lstm_fastkernels as lfk
from cases import Case
from io_cases import KEY, refuse

NAN, INF = float("nan"), float("inf")
FAST = Case(9, 9).fast()
SPARSE = Case(9, 9, layout="block_sparse", activations="float32").fast()
CELL = Case(9, 9).fast_cell()
zeros = torch.zeros


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
        "activations": lstm.activations,
        "layout": lstm.layout,
        "block_size": [8, 4],
    }
    return {"format_version": 1, "lstms": {"": options}}


def write(path, tensors, configuration):
    text = configuration if isinstance(configuration, str) else json.dumps(configuration)
    save_tensors(tensors, path, {KEY: text})


def with_element(tensor, value):
    """A copy with another value in the second place."""
    copied = tensor.clone()
    copied.flatten()[1] = value
    return copied


def test_the_helper_writes_what_is_read(path):
    for lstm in (FAST, SPARSE, CELL):
        write(path, lstm.state_dict(), described(lstm))
        other = lfk.load_file(path)
        assert type(other) is type(lstm)
        lfk.save_file(lstm, path)
        assert repr(lfk.load_file(path)) == repr(other)


# Files that are none


HEADERS = {
    "too short": b"abc",
    "no header": struct.pack("<Q", 100) + b"{}",
    "a huge header": b"\xff" * 8 + b"{}",
    "no JSON": struct.pack("<Q", 2) + b"{]",
    "empty": b"",
    "a pickle": b"\x80\x02}q\x00." * 20,
}


@pytest.mark.parametrize("name", HEADERS)
def test_files_that_are_no_safetensors(path, name):
    path.write_bytes(HEADERS[name])
    refuse(lambda: lfk.load_file(path), path, "not a safetensors file")


def with_header(header, data=b""):
    return struct.pack("<Q", len(header)) + header + data


TWICE = b'"a":{"dtype":"%s","shape":[1],"data_offsets":[0,1]}'


def test_a_tensor_that_is_there_twice(path):
    header = b"{" + TWICE % b"U8" + b"," + TWICE % b"I8" + b"}"
    path.write_bytes(with_header(header, b"x"))
    refuse(lambda: lfk.load_file(path), path, "'a' is there twice")


def test_a_type_that_torch_does_not_have(path):
    path.write_bytes(with_header(b"{" + TWICE % b"F8_E8M0" + b"}", b"x"))
    refuse(lambda: lfk.load_file(path), path, "F8_E8M0")


def test_a_shape_that_torch_cannot_have(path):
    shape = f"[0,{2**62},{2**62}]".encode()
    path.write_bytes(with_header(b'{"a":{"dtype":"U8","shape":%s,"data_offsets":[0,0]}}' % shape))
    refuse(lambda: lfk.load_file(path), path, "not a safetensors file")


def test_a_truncated_file(path):
    lfk.save_file(FAST, path)
    data = path.read_bytes()
    for length in (0, 7, 8, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        refuse(lambda: lfk.load_file(path), path, "not a safetensors file")
    path.write_bytes(data + b"x")
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


# The configuration

BROKEN_TEXTS = {
    "empty": ("", "not JSON"),
    "cut off": ('{"format_version": 1', "not JSON"),
    "NaN": ('{"format_version": NaN}', "not JSON", "NaN"),
    "a key twice": ('{"format_version": 1, "format_version": 1}', "'format_version'", "twice"),
    "deep": ("[" * 100_000, "not JSON", "deeply"),
    "a list": ("[]", "object"),
    "no version": ('{"lstms": {}}', "format_version"),
    "version true": ('{"format_version": true, "lstms": {}}', "format_version", "True"),
    "version 1.0": ('{"format_version": 1.0, "lstms": {}}', "format_version", "1.0"),
    "version 0": ('{"format_version": 0, "lstms": {}}', "version 0", "version 1"),
    "version 2": ('{"format_version": 2, "all": "new"}', "version 2", "version 1"),
    "no lstms": ('{"format_version": 1}', "lstms"),
    "a list of lstms": ('{"format_version": 1, "lstms": []}', "lstms", "object"),
    "none": ('{"format_version": 1, "lstms": {}}', "no LSTM"),
    "a number": ('{"format_version": 1, "lstms": {"": 3}}', "object", "3"),
    "a name twice": ('{"format_version": 1, "lstms": {"a": {}, "a": {}}}', "'a'", "twice"),
}


@pytest.mark.parametrize("name", BROKEN_TEXTS)
def test_broken_configurations(path, name):
    text, *words = BROKEN_TEXTS[name]
    write(path, FAST.state_dict(), text)
    refuse(lambda: lfk.load_file(path), path, *words)


@pytest.mark.parametrize("key", described(FAST)["lstms"][""])
def test_keys_that_are_missing(path, key):
    configuration = described(FAST)
    del configuration["lstms"][""][key]
    write(path, FAST.state_dict(), configuration)
    refuse(lambda: lfk.load_file(path), path, "LSTM ''", f"lacks '{key}'")


@pytest.mark.parametrize(
    "names", [["a", ""], ["", "a"], ["a.b", "a"], ["a", "a-", "a.b.c"]], ids=str
)
def test_lstms_inside_each_other(path, names):
    options = described(FAST)["lstms"][""]
    tensors = {
        f"{name}.{key}".removeprefix("."): tensor.clone()
        for name in names
        for key, tensor in FAST.state_dict().items()
    }
    write(path, tensors, {"format_version": 1, "lstms": dict.fromkeys(names, options)})
    refuse(lambda: lfk.load_file(path), path, "lies inside LSTM", f"'{min(names)}'")


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


BAD_VALUES = [
    ("class", "LSTM", "FastQuantLSTM", "'LSTM'"),
    ("class", "CompressedLSTM", "FastQuantLSTM"),
    ("class", None, "a string", "None"),
    ("input_size", 0, "1..65535", "0"),
    ("input_size", 65536, "1..65535", "65536"),
    ("input_size", True, "an integer", "True"),
    ("input_size", 9.0, "an integer", "9.0"),
    ("input_size", "9", "an integer", "'9'"),
    ("hidden_size", -1, "1..65535", "-1"),
    ("hidden_size", 10**30, "1..65535"),
    ("num_layers", 0, "1..1024", "0"),
    ("num_layers", 1025, "1..1024", "1025"),
    ("num_layers", 10**9, "1..1024"),
    ("proj_size", -1, "0..65535", "-1"),
    ("proj_size", 9, "proj_size", "smaller than hidden_size"),
    ("bias", 1, "true or false", "1"),
    ("batch_first", "false", "true or false", "'false'"),
    ("bidirectional", None, "true or false", "None"),
    ("dropout", False, "a number", "False"),
    ("dropout", 1.5, "dropout"),
    ("activations", "float32", "int8", "'float32'"),
    ("activations", 8, "a string"),
    ("layout", "sparse", "block_sparse", "'sparse'"),
    ("block_size", [8], "two integers"),
    ("block_size", [8, 4, 1], "two integers"),
    ("block_size", [8, True], "two integers"),
    ("block_size", [8, 4.0], "two integers"),
    ("block_size", [8, 0], "two integers"),
    ("block_size", [8, 65_540], "two integers", "65535"),
    ("block_size", {"8": 4}, "a list"),
    ("block_size", [4, 8], "multiple of 8"),
]


@pytest.mark.parametrize(("key", "value", "words"), [(k, v, w) for k, v, *w in BAD_VALUES])
def test_bad_values(path, key, value, words):
    configuration = described(FAST)
    configuration["lstms"][""][key] = value
    write(path, FAST.state_dict(), configuration)
    refuse(lambda: lfk.load_file(path), path, "LSTM ''", key, *words)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_layers", 2),
        ("batch_first", True),
        ("dropout", 0.5),
        ("bidirectional", True),
        ("proj_size", 3),
    ],
)
def test_options_that_a_cell_does_not_have(path, key, value):
    configuration = described(CELL)
    configuration["lstms"][""][key] = value
    write(path, CELL.state_dict(), configuration)
    refuse(lambda: lfk.load_file(path), path, key, "cell")


def test_a_huge_lstm_of_no_tensors_takes_no_memory(path):
    """Its weights would be 3 TB."""
    configuration = described(SPARSE)
    sizes = {"input_size": 65_535, "hidden_size": 32_000, "num_layers": 100, "bidirectional": True}
    configuration["lstms"][""] |= sizes
    write(path, SPARSE.state_dict(), configuration)
    refuse(lambda: lfk.load_file(path), path, "lacks", "weight_ih_l99_reverse")


# Tensors. name: the LSTM, its tensor, what stands there (None: nothing), what the message says

CROW, COL = (SPARSE.state_dict()[f"weight_ih_l0_{end}_indices"] for end in ("crow", "col"))

BAD_TENSORS = {
    "missing bias": (FAST, "bias_l0", None, "lacks bias_l0"),
    "missing scale": (FAST, "weight_hh_l0_scale", None, "lacks"),
    "missing weights": (FAST, "weight_ih_l0", None, "lacks"),
    "one too many": (FAST, "weight_hr_l0", zeros(3), "no place"),
    "dense and in blocks": (SPARSE, "weight_ih_l0", zeros(36, 9), "no place"),
    "shape": (FAST, "weight_ih_l0", zeros(36, 8, dtype=torch.int8), "(36, 9)", "(36, 8)"),
    "scales": (FAST, "weight_ih_l0_scale", zeros(9), "(36,)", "(9,)"),
    "float weights": (FAST, "weight_ih_l0", zeros(36, 9), "int8", "float32"),
    "half bias": (FAST, "bias_l0", zeros(36).half(), "float32", "float16"),
    "-128": (FAST, "weight_ih_l0", torch.full((36, 9), -128, dtype=torch.int8), "-128"),
    "nan scale": (FAST, "weight_ih_l0_scale", with_element(zeros(36), NAN), "finite"),
    "inf scale": (FAST, "weight_hh_l0_scale", with_element(zeros(36), INF), "finite"),
    "negative scale": (FAST, "weight_ih_l0_scale", with_element(zeros(36), -1), "not negative"),
    "inf bias": (FAST, "bias_l0", with_element(zeros(36), INF), "finite"),
    "nan weights": (SPARSE, "weight_hh_l0_values", zeros(24, 8, 4) / 0, "finite"),
    "no crow_indices": (SPARSE, "weight_ih_l0_crow_indices", None, "lacks"),
    "int64 indices": (SPARSE, "weight_ih_l0_col_indices", COL.long(), "int32", "int64"),
    "crow goes down": (SPARSE, "weight_ih_l0_crow_indices", with_element(CROW, 9), "decrease"),
    "column beyond": (SPARSE, "weight_ih_l0_col_indices", with_element(COL, 3), "0..2", "3"),
    "odd blocks": (SPARSE, "weight_ih_l0_values", zeros(24, 7, 4), "8 rows"),
    "tall blocks": (SPARSE, "weight_ih_l0_values", zeros(0, 2**40, 4), "65535"),
}


@pytest.mark.parametrize("name", BAD_TENSORS)
def test_bad_tensors(path, name):
    lstm, key, tensor, *words = BAD_TENSORS[name]
    tensors = {**lstm.state_dict(), key: tensor}
    write(path, {n: t for n, t in tensors.items() if t is not None}, described(lstm))
    matrix = key.partition("_l0")[0]
    refuse(lambda: lfk.load_file(path), path, "LSTM ''", f"{matrix}_l0", *words)


def test_float_weights_are_not_quantized_on_the_way(path):
    """As load_state_dict would; nor do half-precision weights become float32."""
    write(path, nn.LSTM(9, 9).state_dict(), described(FAST))
    refuse(lambda: lfk.load_file(path), path, "lacks", "weight_ih_l0_scale")
    lstm = lfk.FastSparseLSTM(9, 9, bias=False)
    configuration = described(lstm)
    configuration["lstms"][""]["bias"] = False
    write(path, {name: t.half() for name, t in lstm.state_dict().items()}, configuration)
    refuse(lambda: lfk.load_file(path), path, "weight_ih_l0", "float32", "float16")


def test_a_tensor_beside_a_bare_lstm(path):
    write(path, {**FAST.state_dict(), "mine": zeros(3)}, described(FAST))
    refuse(lambda: lfk.load_file(path), path, "no place for mine")
