"""What to say of arguments that torch's dispatcher refuses before the op can look at them."""

from typing import Any

from torch import Tensor

from lstm_fastkernels.weights.checks import special_kind


def explain_refusal(x: Any, h0: Any, c0: Any, lengths: Any) -> None:
    """Raises TypeError that says which argument of a call is no such tensor as the op takes."""
    for name, value in {"input": x, "h0": h0, "c0": c0, "lengths": lengths}.items():
        if value is None and name != "input":
            continue
        wanted = "an int64 tensor on the CPU" if name == "lengths" else "a float32 tensor"
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{name} must be {wanted}, got {type(value).__name__}: torch.as_tensor makes one"
            )
        if kind := special_kind(value):
            raise TypeError(f"{name} must be a dense tensor, got a {kind} one")
        if name in ("h0", "c0") and not value.is_floating_point():
            raise TypeError(
                f"{name} must be float32 or of the input's dtype, got {value.dtype}: new_state() "
                "makes a state"
            )
