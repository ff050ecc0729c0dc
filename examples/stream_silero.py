"""200 telephone calls at once: Silero VAD's LSTM in one StreamBatch, how long a tick takes.

    pip install --no-deps silero-vad
    python examples/stream_silero.py --threads 1

Every 32 ms each call brings a window of sound: one tick of the LSTM moves all of them on. Between
ticks some hang up and others call. The LSTM alone is timed; it reads what Silero VAD's own front
end hears, computed before, of noise that swells and fades or, with --speech, of recordings. All
ways must give the same outputs, bit by bit.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import lstm_fastkernels as lfk
from comparison import cpu_name
from lstm_fastkernels import runtime
from speech_models import SileroVAD

SECONDS = 60  # of sound, which every call hears from another place on
TICKS_OF_A_CALL = 500  # on average: 16 s
WARM_UP = 50  # ticks
PERCENTILES = (50, 99, 99.9)

Batch = lfk.StreamBatch | runtime.StreamBatch
Tick = Callable[[list[int], np.ndarray], np.ndarray]


def main() -> None:
    """Load, run each way, print."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    model = SileroVAD.pretrained()
    frames = heard(model, arguments.speech)
    fast = lfk.FastQuantLSTM.from_float(model.lstm)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "silero.safetensors")
        lfk.save_file(fast, path)
        lstm = runtime.LSTM.load(path)
    torch_batch = lfk.StreamBatch(fast, arguments.streams)
    numpy_batch = runtime.StreamBatch(lstm, arguments.streams)
    threads = arguments.threads
    ways: dict[str, tuple[Batch, Tick]] = {
        "NumPy": (numpy_batch, lambda calls, x: numpy_batch.tick(calls, x, threads=threads)),
        "torch": (
            torch_batch,
            lambda calls, x: torch_batch.tick(calls, torch.from_numpy(x)).numpy(),
        ),
    }
    print(
        f"Silero VAD's LSTM, {fast.input_size} to {fast.hidden_size}, {fast.activations}, "
        f"{lfk.get_isa()}: {arguments.streams} streams, {arguments.ticks:,} ticks, "
        f"{threads} thread(s) of {cpu_name()}\n"
    )
    print("microseconds a tick " + "".join(f"{f'p{p:g}':>10}" for p in PERCENTILES))
    last = []
    for name, (batch, tick) in ways.items():
        seconds, y = run(name, batch, tick, frames, arguments.ticks)
        times = np.percentile(seconds, PERCENTILES) * 1e6
        print(f"{name:<20}" + "".join(f"{t:>10.1f}" for t in times))
        last.append(y)
    assert all(np.array_equal(y, last[0]) for y in last), "the ways differ"


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--ticks", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--speech", type=Path, help="a sub-folder of recordings for each speaker")
    return parser.parse_args()


@torch.inference_mode()
def heard(model: SileroVAD, speech: Path | None) -> np.ndarray:
    """Return what the LSTM reads of a minute of sound, [windows, 128]."""
    samples = SECONDS * 16_000
    if speech is None:
        noise = torch.randn(1, samples, generator=torch.Generator().manual_seed(0))
        sound = noise * torch.linspace(0, 40 * torch.pi, samples).sin().square() * 0.1
    else:
        from speech import crowd, speakers  # needs PyAV

        sound = crowd(speakers(speech)[1][:1], SECONDS, pause=0.3)
    whole = samples // model.WINDOW * model.WINDOW
    frames: Tensor = model.hear(torch.nn.functional.pad(sound[:, :whole], (model.CONTEXT, 0)))
    return frames[0].numpy()


def run(
    name: str, batch: Batch, tick: Tick, frames: np.ndarray, ticks: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the seconds of each tick, and the last outputs, [calls, 128]."""
    calls = [batch.join() for _ in range(batch.capacity)]
    places = np.arange(len(calls)) * 7  # in the sound
    hung_up = 0.0
    leaving = itertools.cycle(range(len(calls)))
    seconds = np.empty(ticks)
    for t in tqdm(range(-WARM_UP, ticks), desc=name, leave=False, disable=None):
        x = frames[places % len(frames)]
        start = time.perf_counter()
        y = tick(calls, x)
        if t >= 0:
            seconds[t] = time.perf_counter() - start
        places += 1
        hung_up += len(calls) / TICKS_OF_A_CALL
        while hung_up >= 1:
            hung_up -= 1
            i = next(leaving)
            batch.leave(calls[i])
            calls[i] = batch.join()
    return seconds, y


if __name__ == "__main__":
    main()
