"""Calibration: what the inputs of a model's matrices are like, layer by layer from disk, and rounding that knows it."""
