"""A checkpoint and a recipe in, a checked `.tflite` file out."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from compresskit.container import pack
from compresskit.data import Split
from compresskit.factorized import factorize
from compresskit.litert import calibration as flows
from compresskit.litert import model as files
from compresskit.litert.inspect import Layer, Site, layers, sites
from compresskit.litert.quantizer import LayerPlan, quantize
from compresskit.litert.stamp import Marks, Stamp, stamp
from compresskit.litert.stretches import stretches
from compresskit.litert.verify import check_file, check_same
from compresskit.pruned import Pruned, float_weights, layer_sites, prune, sample_of
from compresskit.quantization.ranges import Method
from compresskit.recipe import Factorize, Quantize, Recipe, Step
from compresskit.shared import share
from compresskit.zoo import Checkpoint, save_tflite

PROBES = 8
"""Examples on which each new file is checked, operator by operator."""


@dataclass(frozen=True)
class Compressed:
    """A compressed model: the file, and what made it.

    Attributes
    ----------
    tflite : bytes
        The file, a plain flatbuffer.
    recipe : Recipe
        What was done.
    checkpoint : Checkpoint
        What it was done to.
    """

    tflite: bytes = field(repr=False)
    recipe: Recipe
    checkpoint: Checkpoint = field(repr=False)

    @property
    def size(self) -> int:
        """Length of the file in bytes."""
        return len(self.tflite)

    @cached_property
    def deflated_size(self) -> int:
        """Length of the file in bytes after DEFLATE, as a zip archive or a download would hold it."""
        return files.deflated_size(self.tflite)

    def pack(self) -> bytes:
        """Write the file as a packed container, its numbers coded in as few bits as they take.

        Returns
        -------
        bytes
            `compresskit.entropy.unpack` makes the same `.tflite` of it, byte for byte; that was tried before it is
            given. Computed once.
        """
        return self._packed

    @cached_property
    def _packed(self) -> bytes:
        return pack(self.tflite, stretches(self.tflite))

    @property
    def packed_size(self) -> int:
        """Length of the packed container in bytes: codebooks, header, checksum and all."""
        return len(self._packed)

    @cached_property
    def digest(self) -> str:
        """sha256 of the file, in hexadecimal."""
        return hashlib.sha256(self.tflite).hexdigest()

    @property
    def layers(self) -> tuple[Layer, ...]:
        """A row for each layer that holds weights."""
        return layers(self.tflite)

    def weights(self, name: str) -> NDArray[np.float32]:
        """Read a layer's weights back from the file, as the real numbers they stand for.

        Raises
        ------
        ValueError
            If there is no such layer.
        """
        model = files.read(self.tflite)
        return files.dequantized(model, model.subgraphs[0].tensors[_site(sites(model), name).weights])

    def save(self, path: str | Path, score: Marks | None = None) -> Path:
        """Write the file, beside its place first and then moved there.

        Parameters
        ----------
        path
            A file name that ends in `.tflite`.
        score
            What `compresskit.evaluate` said of it. With a score the file is stamped, and about a kilobyte longer:
            `compresskit inspect` tells what was done to which model, and whether the file is still the same.

        Returns
        -------
        Path
            The file, written whole or not at all.

        Raises
        ------
        ValueError
            If the name does not end in `.tflite`.
        """
        return save_tflite(path, self.tflite if score is None else self.stamped(score))

    def stamped(self, score: Marks | None = None, training: Sequence[str] = ()) -> bytes:
        """Give the file with a stamp in it: the recipe, the score, the original's sha256 (`compresskit.litert.stamp`).

        Parameters
        ----------
        score
            What `compresskit.evaluate` said of it.
        training
            Lines of Python that trained the checkpoint, if it is not the original itself.

        Returns
        -------
        bytes
            `compresskit.litert.stamp.strip` gives `tflite` back.

        Raises
        ------
        ValueError
            If the file takes no stamp; see `compresskit.litert.stamp.stamp`.
        """
        told = Stamp(self.checkpoint.name, self.checkpoint.digest, self.recipe, tuple(training), score)
        return stamp(self.tflite, told)


@dataclass(frozen=True)
class Draft:
    """A file that was made and not checked yet: for whoever has something else to do with it meanwhile.

    Attributes
    ----------
    file : Compressed
        The file. Nothing that comes of it may be shown before `checked` has come back.
    """

    file: Compressed
    _check: Callable[[], None] = field(repr=False)

    @cached_property
    def checked(self) -> Compressed:
        """The file, checked when it is first asked for; a ValueError if it is not what the recipe says."""
        self._check()
        return self.file


def compress(checkpoint: Checkpoint, recipe: Recipe, calibration: Split | None = None) -> Compressed:
    """Make a model small as a recipe says, and check the file.

    Parameters
    ----------
    checkpoint
        The float model.
    recipe
        What to do. The empty recipe gives the float file itself.
    calibration
        Digits on which ranges are measured when activations are to be integers; the first
        `Quantize.calibration_digits` of them are used. Take training digits, so that test digits stay unseen.

    Returns
    -------
    Compressed
        The file; every layer has the type asked for, and computes what its weights say (`compresskit.litert.verify`).

    Raises
    ------
    ValueError
        If the recipe does not fit the model, there are no digits to calibrate on, or the file is not what was asked
        for. The sentence names the layer or the step, the value, and what to do.
    """
    return draft(checkpoint, recipe, calibration).checked


def draft(checkpoint: Checkpoint, recipe: Recipe, calibration: Split | None = None) -> Draft:
    """Make a file as `compress` does, with the check still to be done.

    Parameters
    ----------
    checkpoint, recipe, calibration
        As for `compress`.

    Returns
    -------
    Draft

    Raises
    ------
    ValueError
        If the recipe does not fit the model, or there are no digits to calibrate on.
    """
    _check_names(checkpoint, recipe)
    float_weights(checkpoint.tflite)
    sample = sample_of(recipe.prunes, calibration)
    pruned, grids = _edited(checkpoint, recipe, sample)
    step = recipe.quantize
    if step is None:
        edited = files.replace_constants(pruned.base, pruned.weights) if pruned.weights else pruned.base
        return Draft(Compressed(edited, recipe, checkpoint), lambda: None)
    images = _calibration_images(step, calibration)
    ranges = None if images is None else _ranges(step, pruned, images)
    plans = {site.name: _plan(step, site.name, grids.get(site.name, ())) for site in layer_sites(pruned.base)}
    small = quantize(pruned.base, plans, step.activations, ranges, step.io, pruned.weights)
    probes = images[:PROBES] if images is not None else probe_images(checkpoint)
    check = functools.partial(check_file, small, pruned.base, pruned.weights, plans, step.activations, probes)
    return Draft(Compressed(small, recipe, checkpoint), check)


def _edited(
    checkpoint: Checkpoint, recipe: Recipe, sample: Split | None
) -> tuple[Pruned, Mapping[str, tuple[float, ...]]]:
    """Prune, factorize and share; give the float model, and the scales of layers that were put on a uniform grid."""
    channels = tuple(step for step in recipe.prunes if step.place < Factorize.place)
    single = tuple(step for step in recipe.prunes if step.place > Factorize.place)
    if not recipe.factorizes:
        pruned = prune(checkpoint.tflite, recipe.prunes, sample)
    else:
        cut = factorize(prune(checkpoint.tflite, channels, sample).base, recipe.factorizes)
        check_same(cut.base, cut.composed, probe_images(checkpoint))
        later = tuple(step for step in recipe.steps if step.place > Factorize.place)
        _check_layers(later, cut.base, checkpoint.name, tuple(cut.pieces))
        pruned = prune(cut.base, single, sample)
    if not recipe.shares:
        return pruned, {}
    shared = share(pruned, recipe.shares)
    return Pruned(pruned.base, shared.weights), shared.grids


def probe_images(checkpoint: Checkpoint) -> NDArray[np.float32]:
    """Make examples to check a file on when no digits are given: smooth random values from 0 to 1, always the same."""
    noise = np.random.default_rng(0).random((PROBES, *checkpoint.input_shape), dtype=np.float32)
    return np.square(noise)


def _site(found: tuple[Site, ...], name: str) -> Site:
    """Look a layer up by its name."""
    for site in found:
        if site.name == name:
            return site
    raise ValueError(f"layer {name!r} is not in this model; its layers are {', '.join(site.name for site in found)}")


def _check_names(checkpoint: Checkpoint, recipe: Recipe) -> None:
    """Refuse layers that the model does not have, naming the step that asks for them.

    What comes after factorizing names the layers that factorizing has made, and is looked at then.
    """
    first = [step for step in recipe.steps if not recipe.factorizes or step.place <= Factorize.place]
    _check_layers(tuple(first), checkpoint.tflite, checkpoint.name)


def _check_layers(steps: tuple[Step, ...], tflite: bytes, called: str, cut: tuple[str, ...] = ()) -> None:
    """Refuse steps that name a layer which is not in a file, or is there no more since it was cut."""
    known = [site.name for site in layer_sites(tflite)]
    for step in steps:
        for name in step.exceptions if isinstance(step, Quantize) else step.layers or ():
            if name in cut:
                raise ValueError(
                    f"{type(step).__name__}: layer {name!r} is cut into thinner ones by Factorize, and has no settings "
                    f"of its own any more; leave it as all others, or name one that there is: {', '.join(known)}"
                )
            if name not in known:
                raise ValueError(
                    f"{type(step).__name__}: layer {name!r} is not in {called!r}; its layers are {', '.join(known)}"
                )


def _calibration_images(step: Quantize, calibration: Split | None) -> NDArray[Any] | None:
    """Take the digits that ranges are measured on."""
    if not step.needs_calibration:
        return None
    if calibration is None or len(calibration) == 0:
        raise ValueError(
            "calibration: integer activations need digits to measure ranges on, and there are none; give "
            "calibration=digits.train, or choose activations=32"
        )
    images = np.asarray(calibration.images[: step.calibration_digits])
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        raise ValueError("calibration: the digits hold infinite or undefined numbers; clean them first")
    return images


def _ranges(step: Quantize, pruned: Pruned, images: NDArray[Any]) -> Mapping[str, tuple[float, float]]:
    """Measure how far each tensor that flows reaches, and clip it as the recipe says."""
    if step.activation_ranges == "minmax":
        return flows.activation_ranges(pruned.base, images, pruned.weights)
    return flows.chosen_ranges(
        pruned.base, images, pruned.weights, cast(Method, step.activation_ranges), step.activations
    )


def _plan(step: Quantize, name: str, grid: tuple[float, ...] = ()) -> LayerPlan:
    """Say how one layer is to be stored."""
    settings = step.for_layer(name)
    return LayerPlan(
        bits=settings.weights,
        stored=settings.stored,
        activations=settings.activations,
        granularity=settings.granularity,
        ranges=settings.ranges,
        compute=settings.compute,
        grid=grid,
    )
