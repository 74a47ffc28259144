"""Panels that recompress a real model while the hand is still on the mouse."""
