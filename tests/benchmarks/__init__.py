"""What is claimed to be fast or small, measured: `make bench`."""
