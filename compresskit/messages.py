"""How error messages about a layer begin."""

from __future__ import annotations


def of_layer(name: str) -> str:
    """Return ``"layer 'conv1': "``, or nothing where the layer's name is not known.

    Parameters
    ----------
    name : str
        Name of the layer, or ``""``.

    Returns
    -------
    str
    """
    return f"layer {name!r}: " if name else ""
