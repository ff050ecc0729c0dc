"""The op itself: sizes and packed bytes that do not fit are refused or read within bounds."""

import pytest
import torch

import lstm_fastkernels as lfk
from bad_calls import CASE, REFUSED, C, H, X, check, error_of
from cases import assert_same
from isas import everywhere

zeros = torch.zeros


def run_op(**changes):
    """Calls the op for CASE with some arguments replaced."""
    arguments = {
        "x": X,
        "h0": H,
        "c0": C,
        "lengths": None,
        "packed": CASE.fast().packed,
        "shape": [5, 4, 0, 2, 1],
        "batch_first": False,
    }
    y, h, c = torch.ops.lstm_fastkernels.lstm(*{**arguments, **changes}.values())
    return y, (h, c)


def check_refused(**changes):
    everywhere(lambda: check(error_of(lambda: run_op(**changes)), REFUSED))()


def test_op_is_what_the_module_runs():
    assert_same(everywhere(run_op)(), CASE.fast()(X, (H, C)))


def test_packed_bytes_may_lie_at_any_address():
    packed = CASE.fast().packed
    for offset in (1, 3, 8, 33):
        moved = torch.cat((packed.new_zeros(offset), packed))[offset:]
        assert_same(everywhere(run_op)(packed=moved), run_op(), f"offset {offset}")


@pytest.mark.parametrize("keep", [0, 1, 10, 63, 64, 65, 100, 200, -64, -1])
def test_truncated_packed_bytes(keep):
    check_refused(packed=CASE.fast().packed[:keep])


def test_packed_bytes_with_a_tail():
    packed = CASE.fast().packed
    check_refused(packed=torch.cat((packed, packed[:64])))


def is_refused(packed):
    try:
        run_op(packed=packed)
    except REFUSED:
        return True
    return False


@pytest.mark.parametrize("value", [0, 0x7F, 0x80, 0xFF])
def test_lying_headers(value):
    """Whatever stands in a header or record, a call is refused or harmless."""
    packed, expected = CASE.fast().packed, run_op()
    refused = 0
    for offset in range(0, 256, 4):
        lying = packed.clone()
        lying[offset : offset + 4] = value
        if torch.equal(lying, packed):
            continue
        refused += everywhere(is_refused)(lying)
    assert refused >= 5, "magic, version and sizes are checked"
    assert_same(run_op(), expected)


@pytest.mark.parametrize(
    "packed",
    [
        zeros(4096),
        zeros(4096, dtype=torch.uint8),
        zeros(64, 64, dtype=torch.uint8),
        zeros(4096, dtype=torch.uint8, device="meta"),
    ],
    ids=["float", "zeros", "2-D", "meta"],
)
def test_packed_bytes_that_are_none(packed):
    check_refused(packed=packed)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [6, 4, 0, 2, 1], "x": zeros(3, 2, 6)},
        {"shape": [5, 5, 0, 2, 1], "h0": zeros(2, 2, 5), "c0": zeros(2, 2, 5)},
        {"shape": [5, -4, 0, 2, 1]},
        {"shape": [5, 2**40, 0, 2, 1]},
        {"shape": [5, 4, 2, 2, 1], "h0": zeros(2, 2, 2)},
        {"shape": [5, 4, 4, 2, 1]},
        {"shape": [5, 4, 0, 1, 1], "h0": H[:1], "c0": C[:1]},
        {"shape": [5, 4, 0, 0, 1]},
        {"shape": [5, 4, 0, 2**40, 1]},
        {"shape": [5, 4, 0, 1, 2]},
        {"shape": [5, 4, 0, 2, 3]},
        {"shape": []},
        {"shape": [5, 4, 0, 2]},
        {"shape": [5, 4, 0, 2, 1, 1]},
        {"x": zeros(3, 2, 6)},
        {"x": zeros(3, 2, 5, dtype=torch.float64)},
        {"x": zeros(3, 2, 5, device="meta")},
        {"h0": zeros(2, 3, 4)},
        {"h0": None},
        {"c0": zeros(2, 2, 4, dtype=torch.float64)},
        {"header": [1, 2]},
        {"lengths": torch.tensor([3, 4])},
        {"lengths": torch.tensor([3])},
        {"lengths": torch.tensor([3, 2], dtype=torch.int32)},
        {"x": zeros(5, 5), "lengths": torch.tensor([1, 2, 2])},
        {"x": zeros(5, 5), "lengths": torch.tensor([2, 2])},
        {"x": zeros(5, 5), "lengths": torch.tensor([2, 2, 1, 0])},
        {"x": zeros(5, 5), "lengths": torch.tensor([2**62, 2**62, 5 - 2**63])},
    ],
    ids=lambda change: "-".join(
        f"{name}{list(v.shape) if isinstance(v, torch.Tensor) else v}" for name, v in change.items()
    ),
)
def test_op_arguments_are_checked(change):
    check_refused(**change)


def test_released_memory_is_taken_anew():
    """Packed weights that were checked are forgotten, too: the next call checks them again."""
    packed, expected = CASE.fast().packed, run_op()
    for _ in range(3):
        lfk.release_memory()
        assert_same(everywhere(run_op)(packed=packed), expected)
        packed[-1] ^= 0xFF
        lfk.release_memory()
        check(error_of(lambda: run_op(packed=packed)), REFUSED, "packed weights: bias_l1")
        packed[-1] ^= 0xFF
