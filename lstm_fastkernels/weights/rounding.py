"""How floats become the integers of a weight format."""

from dataclasses import dataclass

from lstm_fastkernels.weights.int4 import GROUP_SIZES
from lstm_fastkernels.weights.quantize_rows import PairSafe


@dataclass(frozen=True)
class RoundingConfig:
    """pair_safe: of "int8" matrices, see quantize_rows. group_size: of "int4" ones, the columns
    that share a scale, 32, 64 or 128. Raises ValueError for others."""

    pair_safe: PairSafe = "auto"
    group_size: int = 64

    def __post_init__(self) -> None:
        if self.pair_safe != "auto" and not isinstance(self.pair_safe, bool):
            raise ValueError(f"pair_safe must be 'auto', True or False, got {self.pair_safe!r}")
        if isinstance(self.group_size, bool) or self.group_size not in GROUP_SIZES:
            raise ValueError(
                f"group_size must be one of {list(GROUP_SIZES)}, got {self.group_size!r}"
            )
