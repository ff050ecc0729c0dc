"""Quantization with data: calibration, error feedback, precision where it is needed."""
