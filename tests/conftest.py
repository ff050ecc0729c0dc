import os

import pytest
import torch
from hypothesis import HealthCheck, settings

import lstm_fastkernels as lfk
from cases import KINDS

# Many threads on small tensors only wait for each other, the longer the busier the machine; tests
# that are about threads ask for them.
torch.set_num_threads(1)

# In CI the same examples each time.
settings.register_profile(
    "project",
    deadline=None,
    print_blob=True,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("project")


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"instruction sets: {', '.join(lfk.supported_isas())}")


def pytest_collection_modifyitems(items):
    """Slow tests go first, so that no worker ends alone with them; what is marked `gpu` is skipped
    where it cannot run, saying why."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    if not torch.cuda.is_available():
        reason = "torch finds no CUDA device"
    elif not lfk.cuda_built():
        reason = "this build has no CUDA kernels"
    else:
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(params=["int8", "int16"])
def activations(request):
    return request.param


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def kind(request):
    """Fields to replace in a Case: its activations and how its weights are laid out."""
    return request.param


@pytest.fixture
def threads():
    """torch.set_num_threads, undone after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def path(tmp_path):
    """Of a file that is not there yet, in an empty folder."""
    return tmp_path / "model.safetensors"
