"""What the example scripts share: a small character language model, its corpus and its weights.

The corpus is the standard library of the Python that runs the script, so nothing is downloaded.
A module is held out if the CRC-32 of its path is divisible by 20. The rule looks at nothing but the
path: a module that is held out here is held out for every Python version, and weights that were
trained elsewhere have never seen it.
"""

import copy
import functools
import math
import sysconfig
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

import lstm_fastkernels as lfk
from lstm_fastkernels.io.atomic import write_atomically

SYMBOLS = "\n" + "".join(map(chr, range(32, 127)))
OTHER = len(SYMBOLS)  # one symbol for every other character
VOCABULARY_SIZE = OTHER + 1
HIDDEN_SIZE = 256
EMBEDDING_SIZE = 64

# Folders without ordinary library code: third parties, tests, generated tables.
EXCLUDED_FOLDERS = {
    *("site-packages", "dist-packages", "__pycache__"),
    *("test", "tests", "idle_test", "lib2to3"),
    *("encodings", "pydoc_data"),
}
HELD_OUT_ONE_IN = 20

State = tuple[Tensor, Tensor]


class CharLM(nn.Module):
    """Predicts the next character: embedding, two LSTM layers, linear output.

    ``lstm`` can be replaced by any module that is called like ``nn.LSTM``.
    """

    def __init__(self, hidden_size: int = HIDDEN_SIZE) -> None:
        super().__init__()
        self.embedding: nn.Module = nn.Embedding(VOCABULARY_SIZE, EMBEDDING_SIZE)
        self.lstm: nn.Module = nn.LSTM(EMBEDDING_SIZE, hidden_size, num_layers=2, batch_first=True)
        self.output = nn.Linear(hidden_size, VOCABULARY_SIZE)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Map tokens [B, T] to logits [B, T, VOCABULARY_SIZE] and the state to go on from."""
        hidden, state = self.lstm(self.embedding(tokens), state)
        return self.output(hidden), state


def _build_token_table() -> Tensor:
    table = torch.full((129,), OTHER)
    for token, symbol in enumerate(SYMBOLS):
        table[ord(symbol)] = token
    return table


_TOKEN_OF_CODE_POINT = _build_token_table()


def encode(text: str) -> Tensor:
    """Turn text into int64 tokens."""
    text = text.replace("\r", "").replace("\t", "    ")
    if not text:
        return torch.empty(0, dtype=torch.int64)
    utf32 = bytearray(text.encode("utf-32-le", "replace"))
    code_points = torch.frombuffer(utf32, dtype=torch.int32)
    return _TOKEN_OF_CODE_POINT[code_points.clamp(max=128).long()]


def decode(token: int) -> str:
    """Turn one token into its character, U+FFFD for the symbol that stands for all others."""
    return (SYMBOLS + "\N{REPLACEMENT CHARACTER}")[token]


@functools.cache
def load_corpus() -> tuple[list[Tensor], list[Tensor]]:
    """Return the tokens of each module, (training, held out), in the order of their paths."""
    root = Path(sysconfig.get_path("stdlib"))
    training: list[Tensor] = []
    held_out: list[Tensor] = []
    for name in sorted(path.relative_to(root).as_posix() for path in root.rglob("*.py")):
        if EXCLUDED_FOLDERS.intersection(name.split("/")) or name.startswith("_sysconfigdata"):
            continue
        text = (root / name).read_text(encoding="utf-8", errors="replace")
        is_held_out = zlib.crc32(name.encode()) % HELD_OUT_ONE_IN == 0
        (held_out if is_held_out else training).append(encode(text))
    if not training or not held_out:
        raise FileNotFoundError(f"no Python sources of the standard library below {root}")
    return training, held_out


def text_sample(modules: list[Tensor], streams: int = 16, length: int = 4096) -> Tensor:
    """Cut [streams, length + 1] tokens out of the joined modules, at equal distances."""
    tokens = torch.cat(modules)
    distance = len(tokens) // streams
    length = min(length, distance - 1)
    return torch.stack([tokens[k * distance : k * distance + length + 1] for k in range(streams)])


@torch.inference_mode()
def bits_per_character(model: CharLM, sample: Tensor, chunk: int = 128) -> float:
    """Return the mean of -log2 p(next character) over [B, T + 1], the state carried along a row."""
    state: State | None = None
    nats = 0.0
    inputs, targets = sample[:, :-1], sample[:, 1:]
    for part, expected in zip(inputs.split(chunk, dim=1), targets.split(chunk, dim=1), strict=True):
        logits, state = model(part, state)
        nats += F.cross_entropy(logits.flatten(0, 1), expected.flatten(), reduction="sum").item()
    return nats / targets.numel() / math.log(2)


def save_model(model: CharLM, path: Path, metadata: dict[str, Any]) -> None:
    """Write weights and metadata; a reader sees the old file or the new one, never half of one.

    Floats are written in float16, which changes no digit of the bits per character shown; a
    compressed LSTM keeps its own tensors.
    """
    texts = {key: str(value) for key, value in metadata.items()}
    model = copy.deepcopy(model).half()
    if isinstance(model.lstm, nn.LSTM):
        write_atomically(path, save(model.state_dict(), texts))
    else:
        lfk.save_file(model, path, other_tensors=True, metadata=texts)


def load_model(path: Path) -> tuple[CharLM, dict[str, str]]:
    """Read what ``save_model`` wrote: the float32 model in evaluation mode, and the metadata.

    The LSTM is what it was when it was saved, float or compressed, with the embedding in it or not.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; examples/train_char_lm.py makes it")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            model = CharLM(hidden_size=file.get_slice("output.weight").get_shape()[1]).half()
            if "embedding.weight" not in file.keys():  # noqa: SIM118
                model.embedding = nn.Identity()
                sizes = VOCABULARY_SIZE, model.output.in_features
                model.lstm = nn.LSTM(*sizes, num_layers=2, batch_first=True)
        if metadata.pop("lstm_fastkernels", None):
            lfk.load_file(path, model)
        else:
            model.load_state_dict(load_file(path))
    except (SafetensorError, IndexError, RuntimeError) as error:
        raise ValueError(f"{path}: not the weights of a CharLM: {error}") from error
    return model.float().eval(), metadata
