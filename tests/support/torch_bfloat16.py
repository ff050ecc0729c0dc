"""Whether torch's own nn.LSTM runs in bfloat16 on this processor, to compare with."""

import pytest
import torch

IN_BFLOAT16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
needs_bfloat16 = pytest.mark.skipif(
    not IN_BFLOAT16, reason="torch has no nn.LSTM in bfloat16 for this processor"
)
