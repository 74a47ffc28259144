"""The `.tflite` file itself: read, edit, quantize, run and describe it."""
