"""Two public models with an LSTM in them, in plain torch with the weights of their packages.

    pip install --no-deps silero-vad Resemblyzer

The packages are read, not imported: they need more than their weights do.
"""

import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

State = tuple[Tensor, Tensor]


def package_file(package: str, name: str) -> Path:
    """Return a file of an installed package, without importing it."""
    spec = importlib.util.find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or []:
        if (path := Path(folder, name)).is_file():
            return path
    raise FileNotFoundError(
        f"no {name} in a package {package}: pip install --no-deps silero-vad Resemblyzer"
    )


class SileroVAD(nn.Module):
    """Silero VAD, 16 kHz (MIT): is there speech in each window of 512 samples?

    Magnitudes of a short Fourier transform, four convolutions, an LSTM of 128 units.
    """

    WINDOW = 512
    CONTEXT = 64  # samples of the window before
    BINS = 129

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 2 * self.BINS, 256, stride=128, bias=False)
        self.conv1 = nn.Conv1d(self.BINS, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm: nn.Module = nn.LSTM(128, 128, batch_first=True)
        self.final_conv = nn.Conv1d(128, 1, 1)

    @classmethod
    def pretrained(cls) -> "SileroVAD":
        """Load the weights of the package silero-vad: those of its TorchScript, which it runs."""
        script = torch.jit.load(package_file("silero_vad", "data/silero_vad.jit"))
        model = cls()
        names = {"stft_conv.weight": "stft.forward_basis_buffer"}
        for name in model.state_dict():
            module, _, parameter = name.partition(".")
            if module.startswith("conv"):
                names[name] = f"encoder.{int(module[4:]) - 1}.reparam_conv.{parameter}"
            elif module == "lstm":
                names[name] = f"decoder.rnn.{parameter.removesuffix('_l0')}"
            elif module == "final_conv":
                names[name] = f"decoder.decoder.2.{parameter}"
        weights = script._model.state_dict()
        model.load_state_dict({name: weights[theirs] for name, theirs in names.items()})
        return model.eval().requires_grad_(False)

    def features(self, windows: Tensor) -> Tensor:
        """Map windows [N, CONTEXT + WINDOW] to what the LSTM reads, [N, 128], never negative."""
        x = F.pad(windows[:, None], (0, self.CONTEXT), mode="reflect")
        real, imaginary = self.stft_conv(x).split(self.BINS, dim=1)
        x = (real.square() + imaginary.square()).sqrt()
        for convolution in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = convolution(x).relu()
        return x[..., 0]

    def forward(
        self, audio: Tensor, state: tuple[Tensor, State] | None = None
    ) -> tuple[Tensor, tuple[Tensor, State]]:
        """Map audio [B, n * WINDOW] to probabilities of speech [B, n] and the state to go on from.

        The state is the last CONTEXT samples and the LSTM's.
        """
        context, hx = state or (audio.new_zeros(len(audio), self.CONTEXT), None)
        audio = torch.cat([context, audio], dim=1)
        y, hx = self.lstm(self.hear(audio), hx)
        return self.logits(y).sigmoid(), (audio[:, -self.CONTEXT :], hx)

    def hear(self, audio: Tensor) -> Tensor:
        """Map audio [B, CONTEXT + n * WINDOW] to what the LSTM reads of it, [B, n, 128]."""
        windows = audio.unfold(1, self.CONTEXT + self.WINDOW, self.WINDOW)
        return self.features(windows.flatten(0, 1)).unflatten(0, windows.shape[:2])

    def logits(self, y: Tensor) -> Tensor:
        """Map outputs of the LSTM [B, n, 128] to logits of speech [B, n]."""
        return self.final_conv(y.relu().transpose(1, 2))[:, 0]


class SpeakerEncoder(nn.Module):
    """Resemblyzer's speaker encoder (Apache-2.0): whose voice is it? GE2E, arXiv 1710.10467.

    Three LSTM layers over mel spectrograms, the last output through a linear layer.
    """

    FRAMES = 160  # of 10 ms: the length that it was trained on
    MELS = 40
    LOUDNESS = -30.0  # dB of full scale: Resemblyzer makes quieter speech as loud

    def __init__(self) -> None:
        super().__init__()
        self.lstm: nn.Module = nn.LSTM(self.MELS, 256, num_layers=3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    @classmethod
    def pretrained(cls) -> "SpeakerEncoder":
        """Load the weights of the package Resemblyzer."""
        path = package_file("resemblyzer", "pretrained.pt")
        weights = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
        model = cls()
        model.load_state_dict({name: weights[name] for name in model.state_dict()})
        return model.eval().requires_grad_(False)

    def forward(self, mels: Tensor) -> Tensor:
        """Map spectrograms [B, T, MELS] to embeddings [B, 256] of length 1."""
        y, _ = self.lstm(mels)
        return F.normalize(self.linear(y[:, -1]).relu())

    @classmethod
    def spectrograms(cls, audio: Tensor, loudness: float = LOUDNESS) -> Tensor:
        """Cut audio [B, N] at 16 kHz into mel spectrograms [M, FRAMES, MELS], one after the other.

        Powers, not their logarithms, over 25 ms every 10 ms, of audio brought to this loudness.
        """
        audio = audio * 10 ** (loudness / 20) / audio.square().mean(1, keepdim=True).sqrt()
        window = torch.hann_window(400)
        spectrum = torch.stft(
            audio, 400, 160, window=window, pad_mode="constant", return_complex=True
        )
        mels = mel_filters(cls.MELS, 400, 16_000) @ spectrum.abs().square()
        return mels.unfold(2, cls.FRAMES, cls.FRAMES).permute(0, 2, 3, 1).flatten(0, 1)


def mel_filters(mels: int, fft_size: int, sample_rate: int) -> Tensor:
    """Return triangles [mels, fft_size // 2 + 1] of equal area on Slaney's mel scale, as librosa's.

    The scale is linear up to 1 kHz, 15 mels, and logarithmic above.
    """
    step = torch.tensor(6.4).log() / 27
    highest = 15 + torch.tensor(sample_rate / 2 / 1000).log() / step
    points = torch.linspace(0, 1, mels + 2, dtype=torch.float64) * highest
    points = torch.where(points < 15, points * 200 / 3, 1000 * ((points - 15) * step).exp())
    bins = torch.linspace(0, sample_rate / 2, fft_size // 2 + 1, dtype=torch.float64)
    lower, center, upper = points[:-2, None], points[1:-1, None], points[2:, None]
    rising, falling = (bins - lower) / (center - lower), (upper - bins) / (upper - center)
    return (torch.minimum(rising, falling).clamp(min=0) * 2 / (upper - lower)).float()
