"""How quantize_ prepares a model for training, and ends it."""

from dataclasses import dataclass
from typing import Literal, get_args

from lstm_fastkernels.compression.quantization.config import QuantizationConfig

Step = Literal["prepare", "convert"]
Scales = Literal["learned", "followed"]


@dataclass(frozen=True)
class QATConfig:
    """Quantization-aware training, in two steps around it.

    base_config: what the model is to become, an Int8Config or Int4Config, the same for both steps.
    step: "prepare" before training, "convert" after it.
    scales: "learned" makes the scales of weights parameters, trained with the gradient of LSQ
        (Esser et al. 2020, arXiv 1902.08153, equation 3) in the logarithm, so that an optimizer's
        step changes them by a share (Jain et al. 2020, arXiv 1903.08066, section 3.3); "followed"
        keeps each in its first ratio to the largest weight that it is for. For "prepare".

    Raises ValueError for another step or kind of scales, TypeError for another config.
    """

    base_config: QuantizationConfig
    step: Step = "prepare"
    scales: Scales = "learned"

    def __post_init__(self) -> None:
        if not isinstance(self.base_config, QuantizationConfig):
            raise TypeError(
                "base_config must be an Int8Config or an Int4Config, "
                f"got {type(self.base_config).__name__}"
            )
        if self.step not in get_args(Step):
            raise ValueError(f"step must be one of {list(get_args(Step))}, got {self.step!r}")
        if self.scales not in get_args(Scales):
            raise ValueError(f"scales must be one of {list(get_args(Scales))}, got {self.scales!r}")
