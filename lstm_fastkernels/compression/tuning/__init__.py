"""How far a model can be compressed, found by validation."""
