"""examples/cpp_inference computes what Python does: outputs bit by bit, and the text it writes."""

import math
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import lstm_fastkernels as lfk
from char_lm import VOCABULARY_SIZE, CharLM, decode, encode, load_model, save_model

# It compiles, once for all.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cpp_example")]

EXAMPLES = Path(__file__).parents[2] / "examples"
TOOLS = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

# Options of convert.
COMPRESSED = {
    "int8": {},
    "int16": {"activations": "int16"},
    "int8-sparse": {"layout": "block_sparse"},
    "float32": {"weights": "float32"},
}

TEXT = "\tdef größe(x):\r\n\t\treturn '\0\x1f\x7f\x80~🙂\u2028\ufeff\uffff'\r\n\r\r\t".encode()
# Where the ranges of UTF-8's bytes begin and end, and what encode treats by itself.
EDGES = bytes.fromhex(
    "00 09 0a 0d 1f 20 41 7e 7f 80 8f 90 9f a0 bf c0 c1 c2 df e0 e1 ec ed ee ef f0 f1 f3 f4 f5 ff"
)
CUT_SHORT = [b"\xc3", b"\xe2\x82", b"\xed\xa0", b"\xf0\x9f", b"\xf0\x9f\x99", b"\xf4\x90"]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The example, built as its README says, but with sanitizers."""
    cmake = shutil.which("cmake", path=TOOLS)
    if cmake is None:
        pytest.skip("cmake is missing")
    build = tmp_path_factory.mktemp("build")
    sanitize = "-fsanitize=address,undefined -fno-sanitize-recover=all -D_GLIBCXX_ASSERTIONS"
    options = [
        *("-S", EXAMPLES / "cpp_inference", "-B", build),
        f"-Dlstm_fastkernels_DIR={lfk.get_cmake_dir()}",
        *("-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS_DEBUG=-O1 -g1"),
        f"-DCMAKE_CXX_FLAGS={sanitize} -Werror",
    ]
    subprocess.run([cmake, *options], check=True)
    subprocess.run([cmake, "--build", build], check=True)
    return build / "char_lm"


def run(program, *arguments, text=b"", isa="", stdout=subprocess.PIPE):
    return subprocess.run(
        [program, *arguments],
        input=text,
        env={**os.environ, "LSTM_FASTKERNELS_ISA": isa},
        stdout=stdout,
        stderr=subprocess.PIPE,
    )


def small_model(hidden_size=24, **options):
    """With floats that float16, in which save_model writes them, can hold."""
    torch.manual_seed(0)
    return lfk.convert(CharLM(hidden_size).half().float(), **options).eval()


def tokens_of(text):
    return encode(text.decode("utf-8", "replace"))


def log_probabilities(model, hidden):
    weight, bias = model.output.weight.double(), model.output.bias.double()
    return F.linear(hidden.double(), weight, bias).log_softmax(-1)


@torch.inference_mode()
def expected_score(model, text):
    """What `score` prints, without the times, and what it writes with --outputs."""
    tokens = tokens_of(text)
    hidden, _ = model.lstm(model.embedding(tokens[None, :-1]))
    nats = F.nll_loss(log_probabilities(model, hidden[0]), tokens[1:])
    lines = [f"{nats / math.log(2):.6f} bits per character", f"{len(tokens) - 1} characters"]
    return lines, hidden[0]


def check_score(program, model, model_file, text, isas=("",)):
    outputs = model_file.with_name("outputs")
    expected_lines, hidden = expected_score(model, text)
    for isa in isas:
        result = run(program, model_file, "score", "--outputs", outputs, text=text, isa=isa)
        assert result.returncode == 0, result.stderr
        *lines, times = result.stdout.decode().splitlines()
        assert lines == expected_lines, isa
        assert "us an LSTM step" in times
        actual = np.fromfile(outputs, np.float32)
        assert torch.equal(torch.from_numpy(actual).view_as(hidden), hidden), isa


# Scoring


@pytest.mark.parametrize("options", COMPRESSED.values(), ids=COMPRESSED)
def test_outputs(program, path, options):
    model = small_model(**options)
    save_model(model, path, {})
    check_score(program, model, path, TEXT, lfk.supported_isas())


def test_a_folded_embedding(program, path):
    model = CharLM(24).half().float().eval()
    model.lstm = lfk.fold_embedding(model.embedding, model.lstm)
    model.embedding = nn.Identity()
    save_model(model, path, {})
    read, _ = load_model(path)
    tokens = encode("def f():")[None]
    with torch.no_grad():
        assert torch.equal(read(tokens)[0], model(tokens)[0])
    check_score(program, model, path, TEXT, lfk.supported_isas())


def test_invalid_utf8(program, path):
    model = small_model()
    save_model(model, path, {})
    text = bytes(random.Random(0).choices(EDGES, k=20_000))
    check_score(program, model, path, text)


@pytest.mark.parametrize("end", CUT_SHORT, ids=bytes.hex)
def test_a_text_that_ends_inside_a_character(program, path, end):
    model = small_model()
    save_model(model, path, {})
    check_score(program, model, path, b"ab" + end)


def test_the_pruned_model(program, path):
    shutil.copy(EXAMPLES / "char_lm_pruned.safetensors", path)
    model, _ = load_model(path)
    assert isinstance(model.lstm, lfk.FastQuantLSTM)
    assert "8x4 blocks" in repr(model.lstm)
    text = (EXAMPLES / "char_lm.py").read_bytes()
    check_score(program, model, path, text, lfk.supported_isas())


# Writing


@torch.inference_mode()
def expected_text(model, prompt, seed):
    uniform = np.random.RandomState(seed).random_sample
    hidden, state = model.lstm(model.embedding(encode(prompt)[None]))
    text = ""
    while len(text) < 800 and text.count("\n") < 12:
        sums = (log_probabilities(model, hidden[0, -1]) / 0.5).exp().cumsum(0)
        token = torch.searchsorted(sums, uniform() * sums[-1:], right=True)
        text += decode(int(token))
        hidden, state = model.lstm(model.embedding(token[None]), state)
    return prompt + text + "\n"


@pytest.mark.parametrize("seed", [0, 4, 2**32 - 1])
def test_written_text(program, path, seed):
    model = lfk.convert(load_model(EXAMPLES / "char_lm.safetensors")[0])
    save_model(model, path, {})
    prompt = "def größe("
    expected = expected_text(model, prompt, seed)
    for isa in lfk.supported_isas():
        result = run(program, path, "write", prompt, str(seed), isa=isa)
        assert result.returncode == 0, result.stderr
        assert result.stdout.decode() == expected, isa


def test_an_untrained_model_writes_every_symbol(program, path):
    model = small_model()
    save_model(model, path, {})
    texts = [expected_text(model, "\t", seed) for seed in range(8)]
    assert {symbol for text in texts for symbol in text} >= set(map(decode, range(VOCABULARY_SIZE)))
    for seed, text in enumerate(texts):
        assert run(program, path, "write", "\t", str(seed)).stdout.decode() == text


# Errors


def refuse(result, *words):
    assert result.returncode == 1, (result.returncode, result.stderr)
    message = result.stderr.decode()
    assert message.startswith("char_lm: "), message
    for word in words:
        assert word in message


def test_a_missing_file(program, path):
    refuse(run(program, path, "write"), str(path), "No such file")


def test_a_float_model(program):
    path = EXAMPLES / "char_lm.safetensors"
    refuse(run(program, path, "write"), str(path), "LSTM 'lstm'")


@pytest.mark.parametrize(
    ("attribute", "module", "words"),
    [
        ("embedding", nn.Embedding(98, 64), ["embedding.weight", "[98, 64]", "[97, 64]"]),
        ("embedding", nn.Embedding(97, 63), ["embedding.weight", "[97, 63]", "[97, 64]"]),
        ("output", nn.Linear(25, 97), ["output.weight", "[97, 25]", "[97, 24]"]),
        ("output", nn.Linear(24, 96), ["output", "96", "97"]),
        ("output", nn.Linear(24, 97, bias=False), ["output.bias"]),
        ("output", nn.Linear(24, 97).to(torch.float64), ["output", "F64"]),
        ("lstm", lfk.FastQuantLSTM(64, 24, bidirectional=True), ["bidirectional"]),
    ],
)
def test_a_model_that_does_not_fit(program, path, attribute, module, words):
    model = small_model()
    setattr(model, attribute, module)
    lfk.save_file(model, path, other_tensors=True)
    refuse(run(program, path, "write"), str(path), *words)


@pytest.mark.parametrize("text", [b"", b"a", b"\r\r", b"\xf0\x9f\x99"])
def test_too_little_text(program, path, text):
    save_model(small_model(), path, {})
    refuse(run(program, path, "score", text=text), "fewer than two characters")


@pytest.mark.parametrize("prompt", ["", "\r"])
def test_an_empty_prompt(program, path, prompt):
    save_model(small_model(), path, {})
    refuse(run(program, path, "write", prompt), "prompt")


@pytest.mark.parametrize("outputs", ["/dev/full", "/no/such/folder"])
def test_outputs_that_cannot_be_written(program, path, outputs):
    save_model(small_model(), path, {})
    refuse(run(program, path, "score", "--outputs", outputs, text=TEXT), outputs)


@pytest.mark.parametrize("mode", ["write", "score"])
def test_standard_output_that_cannot_be_written(program, path, mode):
    save_model(small_model(), path, {})
    with open("/dev/full", "wb") as full:
        refuse(run(program, path, mode, text=TEXT, stdout=full), "standard output")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["model"],
        ["model", "read"],
        ["model", "write", "prompt", "1", "2"],
        *(["model", "write", "prompt", seed] for seed in ["", "-1", "1x", " 1", str(2**32)]),
        ["model", "score", "--outputs"],
        ["model", "score", "--output", "file"],
        ["model", "score", "--outputs", "file", "more"],
    ],
    ids=" ".join,
)
def test_usage(program, arguments):
    result = run(program, *arguments)
    assert result.returncode == 2
    assert result.stdout == b""
    assert result.stderr.startswith(b"usage: ")
