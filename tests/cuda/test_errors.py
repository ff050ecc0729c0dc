"""Calls on CUDA that are refused; the device works on."""

from dataclasses import replace

import pytest
import torch

from cases import KINDS, assert_same, moved
from on_cuda import CASE

pytestmark = pytest.mark.gpu


def test_backward_says_what_to_use_instead(kind):
    fast = replace(CASE, **kind).fast().cuda()
    y, _ = fast(CASE.x().cuda().requires_grad_())
    with pytest.raises(RuntimeError, match=r"dequantize\(\) or to_dense\(\)"):
        y.sum().backward()


def refused(call, *words):
    """RuntimeError or ValueError with these words; the device works on."""
    with pytest.raises((RuntimeError, ValueError)) as raised:
        call()
    for word in words:
        assert word in str(raised.value), f"{word!r} is not in: {raised.value}"
    torch.cuda.synchronize()


def test_devices_may_not_mix():
    fast, x, state = CASE.fast().cuda(), CASE.x(), CASE.state()
    on_gpu, state_there, lengths = x.cuda(), moved(state, "cuda"), CASE.lengths()
    refused(lambda: fast(x), "input", "cuda:0", "cpu")
    refused(lambda: fast(on_gpu, state), "h0", "cuda:0", "cpu")
    refused(lambda: fast(on_gpu, (state_there[0], state[1])), "c0", "cuda:0", "cpu")
    refused(lambda: fast(on_gpu, lengths=lengths.cuda()), "lengths", "CPU", "cuda:0")
    fast.cpu()
    refused(lambda: fast(on_gpu), "input", "cpu", "cuda:0")
    refused(lambda: fast(x, state_there), "h0", "cpu", "cuda:0")
    refused(lambda: fast(x, lengths=lengths.cuda()), "lengths", "CPU", "cuda:0")


def test_bad_calls():
    fast, x = CASE.fast().cuda(), CASE.x().cuda()
    h, c = moved(CASE.state(), "cuda")
    refused(lambda: fast(x.double()), "float64", ".float()")
    refused(lambda: fast(x[:0]), "sequence length")
    refused(lambda: fast(x[..., :5]), "9", "5")
    refused(lambda: fast(x, (h[:1], c[:1])), "hidden[0]")
    refused(lambda: fast(x, (h, c.half())), "one dtype")
    for lengths in ([5, 6, 5], [5, 0, 1], [5, -1, 1], [5, 5]):
        refused(lambda n=lengths: fast(x, lengths=torch.tensor(n)))
    for batch_sizes in ([2, 4, 3], [0, 9], [3, 7, -1], [9, 0]):
        sizes = torch.tensor(batch_sizes)
        data = torch.zeros(9, 9, device="cuda")
        refused(lambda d=data, n=sizes: fast(torch.nn.utils.rnn.PackedSequence(d, n)))
    assert_same(moved(fast(x), "cpu"), CASE.fast()(CASE.x()))


def test_packed_for_another_device():
    on_cpu, fast = CASE.fast(), CASE.fast().cuda()
    op, x = torch.ops.lstm_fastkernels.lstm, CASE.x()
    sizes = ([9, 31, 0, 2, 1], False)
    none = (None, None, None)
    refused(lambda: op(x.cuda(), *none, on_cpu.packed.cuda(), *sizes), "packed for the CPU")
    refused(lambda: op(x, *none, fast.packed.cpu(), *sizes, fast._header), "packed for CUDA")
    refused(lambda: op(x, *none, fast.packed.cpu(), *sizes))
    refused(lambda: op(x.cuda(), *none, fast.packed[:-16], *sizes, fast._header))
    refused(lambda: op(x.cuda(), *none, fast.packed, [9, 30, 0, 2, 1], False, fast._header), "31")
    shifted = torch.cat((fast.packed.new_zeros(1), fast.packed))[1:]
    refused(lambda: op(x.cuda(), *none, shifted, *sizes, fast._header), "aligned")


@pytest.mark.parametrize("name", ["int8", "int8-sparse", "float32"])
def test_tampered_headers(name):
    """Whatever stands in the host's copy of the header, a call is refused or harmless."""
    case = replace(CASE, **KINDS[name])
    fast, x = case.fast().cuda(), CASE.x().cuda()
    expected, head = fast(x), list(fast._header)
    count = 0
    for n in range(len(head)):
        for value in (0, -1, 1, head[n] + 1, head[n] - 1, head[n] ^ (1 << 33), 2**63 - 1):
            fast._header = [*head[:n], value, *head[n + 1 :]]
            if fast._header == head or not -(2**63) <= value < 2**63:
                continue
            try:
                fast(x)
            except (RuntimeError, ValueError):
                count += 1
            torch.cuda.synchronize()
    for fast._header in ([], head[:-1], [*head, 0]):
        refused(lambda: fast(x))
    fast._header = head
    assert count >= 5, "magic, version and sizes are checked"
    assert_same(fast(x), expected)
