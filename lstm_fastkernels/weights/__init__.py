"""How weights are stored: shapes, formats, structures, canonical tensors, packing. No nn.Module."""
