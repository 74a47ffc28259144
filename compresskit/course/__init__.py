"""Exercise checks, predictions, and the building of notebooks from lessons."""
