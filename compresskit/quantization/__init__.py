"""Affine quantization, the choice of ranges and integer-only inference, in NumPy."""
