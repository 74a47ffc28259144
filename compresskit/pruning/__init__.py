"""Which weights matter, which patterns they leave in, and how fast they go, in NumPy."""
