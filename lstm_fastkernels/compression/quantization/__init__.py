"""Quantizing with calibration data."""
