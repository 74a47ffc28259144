"""compresskit: a course and a workbench on making neural networks small."""
