"""Files that hold packed weights, too: processes that map one share its pages."""

import copy
import gc
import io
import json
import pickle
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file as load_tensors
from torch import nn

import lstm_fastkernels as lfk
from cases import Case, assert_same
from good_files import model
from io_cases import refuse, same_tensors
from isas import everywhere
from kept_cases import (
    CASE,
    NAMES,
    assert_equal_tensors,
    assert_holds_packed_alone,
    call,
    kept,
    made,
)
from lstm_fastkernels import ops
from packed_files import OUTDATED, change, header_of, mappings, write_packed


def load_mapped(path, model=None):
    return lfk.load_file(path, model, keep="packed", mmap=True)


def assert_runs_as(fast, expected):
    assert_same(call(fast), call(expected))


@pytest.mark.parametrize("name", NAMES)
def test_everything_runs_from_the_file(name, path):
    fast = made(name)
    write_packed(fast, path)
    mapped = load_mapped(path)
    assert mapped.shares_file
    assert mapped.packed_bytes() == fast.packed_bytes()
    assert_holds_packed_alone(mapped)
    assert_runs_as(mapped, fast)
    assert mapped.shares_file
    assert_equal_tensors(mapped.state_dict(), fast.state_dict())
    assert repr(mapped) == repr(kept(fast))
    as_canonical = path.read_bytes()
    write_packed(kept(fast), path)
    assert path.read_bytes() == as_canonical
    for keep in ("canonical", "packed"):
        other = lfk.load_file(path, keep=keep)
        assert not other.shares_file
        assert_runs_as(other, fast)
        assert_equal_tensors(other.state_dict(), fast.state_dict())


def test_other_tools_read_it(path):
    fast = CASE.fast()
    write_packed(nn.ModuleDict({"encoder": fast}), path, metadata={"epoch": "7"})
    tensors = load_tensors(path)
    packed = tensors.pop("encoder.packed")
    assert packed.dtype == torch.uint8
    assert torch.equal(packed, fast.packed)
    assert_equal_tensors(tensors, {f"encoder.{n}": t for n, t in fast.state_dict().items()})
    with safe_open(path, framework="np") as file:
        assert file.metadata()["epoch"] == "7"
        assert np.array_equal(file.get_tensor("encoder.packed"), packed.numpy())


def model_of_each():
    parts = model()
    parts.rnn = Case(9, 31, 2, activations="int4", layout="dense").fast()
    parts.ids = made("ids, int8")
    return parts


def test_a_model(path):
    """Packed weights come first, at multiples of 64 bytes of the file."""
    source = model_of_each()
    write_packed(source, path, other_tensors=True)
    header, data_begin = header_of(path)
    begins = {name: t["data_offsets"][0] for name, t in header.items() if name != "__metadata__"}
    lstms = ["encoder.first", "encoder.second", "rnn", "ids"]
    first = sorted(begins, key=begins.get)[: len(lstms)]
    assert first == [f"{name}.packed" for name in lstms]
    assert all((data_begin + begins[name]) % 64 == 0 for name in first)
    target = copy.deepcopy(source)
    with torch.no_grad():
        for tensor in target.state_dict().values():
            tensor.zero_()
    assert load_mapped(path, target) is target
    for name in lstms:
        assert target.get_submodule(name).shares_file
    assert_equal_tensors(target.state_dict(), source.state_dict())
    assert_runs_as(target.ids, source.ids)
    assert_same(target.rnn(Case(9).x()), source.rnn(Case(9).x()))
    assert torch.equal(target.head.weight, source.head.weight)


def test_a_shared_module_runs_from_the_file_wherever_it_is(path):
    fast = CASE.fast()
    write_packed(nn.ModuleDict({"a": fast, "b": fast}), path)
    lstm = CASE.lstm()
    target = load_mapped(path, nn.ModuleDict({"a": lstm, "b": lstm}))
    assert target["a"] is target["b"]
    assert target["a"].shares_file
    assert_same(target["b"](CASE.x()), fast(CASE.x()))


# The hash


def hash_of(tensors):
    """As docs/file_format.md has it."""
    dtypes = {torch.int8: "I8", torch.uint8: "U8", torch.int32: "I32"}
    dtypes |= {torch.float32: "F32", torch.float16: "F16"}
    state = 0xCBF29CE484222325
    for name, tensor in sorted(tensors.items()):
        form = " ".join([name, dtypes[tensor.dtype], *map(str, tensor.shape)])
        for piece in (form.encode(), tensor.numpy().tobytes()):
            parts = [piece[i : i + 8] for i in range(0, len(piece), 8)]
            for word in (len(piece), *(int.from_bytes(part, "little") for part in parts)):
                state = (state ^ word) * 0x9E3779B97F4A7C15 % 2**64
                state ^= state >> 32
    return f"{state:016x}"


@pytest.mark.parametrize("name", NAMES)
def test_the_hash_is_the_one_of_the_format(name, path):
    fast = made(name)
    write_packed(fast, path)
    with safe_open(path, framework="pt") as file:
        configuration = json.loads(file.metadata()["lstm_fastkernels"])
    assert configuration["lstms"][""]["packed_from"] == hash_of(fast.state_dict())


def test_the_op_hashes_what_it_is_given():
    assert ops.hash_tensors([], []) == hash_of({})
    strided = torch.arange(12, dtype=torch.int32).view(3, 4).T
    assert ops.hash_tensors([strided], ["a"]) == hash_of({"a": strided.contiguous()})
    with pytest.raises(RuntimeError, match="a is given twice"):
        ops.hash_tensors([strided, strided], ["a", "a"])
    with pytest.raises(RuntimeError, match="a name for each of 1 tensors, got 2"):
        ops.hash_tensors([strided], ["a", "b"])
    with pytest.raises(RuntimeError, match="a must be of dtype"):
        ops.hash_tensors([strided.double()], ["a"])


# Packed weights that do not fit


@pytest.mark.parametrize("name", OUTDATED)
def test_outdated_packed_weights_are_left(name, path):
    case = Case(9, 31)
    write_packed(case.fast(), path)
    change(path, OUTDATED[name])
    mapped, expected = load_mapped(path), lfk.load_file(path)
    assert not mapped.shares_file
    assert_holds_packed_alone(mapped)
    assert_same(mapped(case.x()), expected(case.x()))
    gc.collect()
    assert not mappings(path)


def test_a_file_without_packed_weights(path):
    lfk.save_file(nn.Sequential(CASE.fast(), nn.Linear(3, 2)), path, other_tensors=True)
    target = load_mapped(path, nn.Sequential(CASE.new(device="meta"), nn.Linear(3, 2)))
    assert not target[0].shares_file
    assert_same(target[0](CASE.x()), CASE.fast()(CASE.x()))
    gc.collect()
    assert not mappings(path)


DAMAGES = {
    "magic": (lambda p: p.put("packed", 0, b"l"), "packed weights: bad magic number"),
    "sizes": (lambda p: p.put("packed", 24, b"\xff"), "packed weights: expected "),
    "records": (lambda p: p.put("packed", 64, b"\xff"), "there is no precision of"),
    "bias": (lambda p: p.put("packed", -4, b"\0\0\xc0\x7f"), "packed weights: bias_l0: value of "),
    "empty": (lambda p: p.change("packed", "U8", [0], b""), "packed weights: expected at least 64"),
    "cut": (lambda p: p.change("packed", "U8", [64], bytes(p.data[:64])), "packed weights: expect"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_packed_weights_are_refused(name, path):
    """Where they would be run; who packs the canonical tensors does not look at them."""
    damage, words = DAMAGES[name]
    case = Case(9, 31)
    write_packed(nn.ModuleDict({"rnn": case.fast()}), path)
    write_packed(case.fast(), path)
    change(path, damage)
    before = case.new(keep="packed").state_dict()
    target = case.new(keep="packed")
    target.load_state_dict(before)
    for load in (lambda: load_mapped(path), lambda: load_mapped(path, target)):
        refuse(load, path, f"LSTM '': packed: {words}")
    same_tensors(target.state_dict(), before)
    assert_same(lfk.load_file(path)(case.x()), case.fast()(case.x()))


def test_random_changes_are_refused_or_harmless(path):
    """Harmless: every instruction set gives the same."""
    case = Case(5, 9, proj_size=3)
    write_packed(case.fast(), path)
    whole, (header, begin) = path.read_bytes(), header_of(path)
    size = header["packed"]["data_offsets"][1]
    choice = random.Random(1)
    refused = 0
    for _ in range(100):
        at, flip = choice.randrange(size), choice.randrange(1, 256)
        changed = bytearray(whole)
        changed[begin + at] ^= flip
        path.write_bytes(changed)
        try:
            mapped = load_mapped(path)
        except ValueError:
            refuse(lambda: load_mapped(path), path, "LSTM '': packed: ")
            refused += 1
        else:
            everywhere(mapped)(case.x())
    assert 10 < refused < 90


# Calls that cannot be


def test_canonical_tensors_cannot_be_mapped(path):
    write_packed(CASE.fast(), path)
    for options in ({}, {"keep": "canonical"}):
        with pytest.raises(ValueError, match=r"^mmap=True needs keep=.packed., got 'canonical'"):
            lfk.load_file(path, mmap=True, **options)
    with pytest.raises(ValueError, match=r"^keep must be one of .* got 'nothing'"):
        lfk.load_file(path, mmap=True, keep="nothing")


def test_files_that_cannot_be_read(path):
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        load_mapped(path)
    with pytest.raises(IsADirectoryError):
        load_mapped(path.parent)
    with pytest.raises(OSError, match="not a regular file: '/dev/zero'"):
        load_mapped("/dev/zero")
    write_packed(CASE.fast(), path)
    whole = path.read_bytes()
    for contents in (b"", whole[:7], whole[:100], whole[:-1], whole + b"\0"):
        path.write_bytes(contents)
        refuse(lambda: load_mapped(path), path, "not a safetensors file")


def test_tensors_without_values_cannot_be_packed(path):
    with pytest.raises(ValueError, match="meta device"):
        write_packed(CASE.new(device="meta"), path)
    assert not path.exists()


# While it is mapped


def test_the_file_may_go(path):
    fast, other = CASE.fast(), CASE.new()
    write_packed(fast, path)
    mapped = load_mapped(path)
    write_packed(other, path)
    assert_same(mapped(CASE.x()), fast(CASE.x()))
    assert_same(load_mapped(path)(CASE.x()), other(CASE.x()))
    path.unlink()
    assert_same(mapped(CASE.x()), fast(CASE.x()))
    assert_equal_tensors(mapped.state_dict(), fast.state_dict())
    assert mapped.shares_file


def test_it_may_be_saved_over_the_file_that_it_runs_from(path):
    write_packed(CASE.fast(), path)
    mapped, whole = load_mapped(path), path.read_bytes()
    write_packed(mapped, path)
    assert path.read_bytes() == whole
    assert_same(mapped(CASE.x()), CASE.fast()(CASE.x()))


def test_nothing_stays_mapped_when_the_module_is_gone(path):
    write_packed(CASE.fast(), path)
    mapped = load_mapped(path)
    mapped(CASE.x())
    assert mappings(path)["Rss"] > 0
    del mapped
    gc.collect()
    assert not mappings(path)


def test_only_packed_weights_stay_in_memory(path):
    """What was read of the canonical tensors need not."""
    case = Case(1024, 1024)
    write_packed(case.new(), path)
    mapped = load_mapped(path)
    mapped(case.x())
    assert 1 <= mappings(path)["Rss"] * 1024 / mapped.packed_bytes() < 1.3


def test_writes_stay_in_the_process(path):
    fast, other = CASE.fast(), CASE.new(keep="packed")
    write_packed(fast, path)
    whole, mapped = path.read_bytes(), load_mapped(path)
    mapped.packed.copy_(other.packed)
    for name, bias in other.named_parameters():
        mapped.get_parameter(name).copy_(bias)
    assert_same(mapped(CASE.x()), other(CASE.x()))
    assert not mapped.shares_file
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "mode", [torch.inference_mode, torch.no_grad, torch.enable_grad, lambda: torch.device("meta")]
)
def test_in_any_mode(mode, path):
    write_packed(CASE.fast(), path)
    with mode():
        mapped = load_mapped(path)
    assert mapped.shares_file
    assert_same(mapped(CASE.x()), CASE.fast()(CASE.x()))
    assert mapped.shares_file
    mapped.bias_l0.zero_()
    expected = CASE.fast()
    expected.bias_l0.zero_()
    assert_same(mapped(CASE.x()), expected(CASE.x()))


CHANGES = {
    "bias in place": lambda fast: fast.bias_l0.mul_(0.5),
    "load_state_dict": lambda fast: fast.load_state_dict(CASE.new().state_dict()),
    "canonical": lambda fast: setattr(fast, "keep", "canonical"),
    "repack_": lambda fast: fast.repack_(),
    "share_memory": lambda fast: fast.share_memory(),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changes_give_it_memory_of_its_own(name, path):
    write_packed(CASE.fast(), path)
    mapped, expected = load_mapped(path), kept(CASE.fast())
    torch.manual_seed(3)
    CHANGES[name](mapped)
    torch.manual_seed(3)
    CHANGES[name](expected)
    assert_same(mapped(CASE.x()), expected(CASE.x()))
    assert not mapped.shares_file
    assert_equal_tensors(mapped.state_dict(), expected.state_dict())
    gc.collect()
    assert not mappings(path)


def test_moves_within_the_cpu_change_nothing(path):
    write_packed(CASE.fast(), path)
    mapped = load_mapped(path)
    mapped.half().float().eval().to("cpu").requires_grad_(False)
    assert mapped.shares_file
    assert_same(mapped(CASE.x()), CASE.fast()(CASE.x()))


def test_copies_have_memory_of_their_own(path):
    write_packed(CASE.fast(), path)
    mapped, buffer = load_mapped(path), io.BytesIO()
    torch.save(mapped, buffer)
    buffer.seek(0)
    for copied in (
        copy.deepcopy(mapped),
        pickle.loads(pickle.dumps(mapped)),
        torch.load(buffer, weights_only=False),
    ):
        assert not copied.shares_file
        assert_holds_packed_alone(copied)
        assert_equal_tensors(copied.state_dict(), mapped.state_dict())
        assert_same(copied(CASE.x()), mapped(CASE.x()))
    assert mapped.shares_file


def test_tracers(path):
    write_packed(CASE.fast(), path)
    mapped = load_mapped(path)
    program = torch.export.export(mapped, (CASE.x(),))
    assert_same(program.module()(CASE.x()), CASE.fast()(CASE.x()))
    torch.compiler.reset()
    compiled = torch.compile(mapped, fullgraph=True, backend="aot_eager")
    assert_same(compiled(CASE.x()), CASE.fast()(CASE.x()))
    assert mapped.shares_file


# Runs from the file at its first line of input, ends at its second.
OTHER_PROCESS = """
import sys
import numpy as np
from lstm_fastkernels.runtime import LSTM

lstm = LSTM.load(sys.argv[1], mmap=True)
assert lstm.shares_file
lstm.forward(np.zeros((2, 1, lstm.input_size), np.float32))
print("running", flush=True)
sys.stdin.read()
"""


def test_processes_share_the_pages(path):
    """A module here, the NumPy runtime there."""
    case = Case(512, 512)
    write_packed(case.new(), path)
    mapped = load_mapped(path)
    mapped(case.x())
    alone = mappings(path)
    command = [sys.executable, "-c", OTHER_PROCESS, path]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as other:
        assert other.stdout.readline() == b"running\n"
        shared, theirs = mappings(path), mappings(path, other.pid)
        other.stdin.close()
    assert other.returncode == 0
    packed = mapped.packed_bytes() / 1024
    assert alone["Rss"] >= packed
    for counts in (shared, theirs):
        assert counts["Shared_Clean"] >= packed
        assert counts["Pss"] <= 0.6 * counts["Rss"]
        assert counts["Private_Dirty"] == counts["Shared_Dirty"] == 0
