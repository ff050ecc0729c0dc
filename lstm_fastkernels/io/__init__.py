"""Saving and loading: one safetensors file (docs/file_format.md)."""
