"""The exercise of lesson 00: a first answer to try checks on."""

from __future__ import annotations

from compresskit.course.checks import Exercise, Mistake

EXERCISES = {
    "pixels": Exercise(
        reference=28 * 28,
        mistakes=(
            Mistake(28, "That is one side of the image; it has as many rows as columns."),
            Mistake(28 + 28, "The sides are added here; an area is their product."),
            Mistake(32 * 32, "Other data sets have 32 x 32 pixels; these are smaller. `model.input_shape` says."),
            Mistake(3 * 28 * 28, "That would be a colour image. These have one grey value a pixel."),
            Mistake((28, 28), "That is the shape of the image; how many pixels are in it?"),
            Mistake((28, 28, 1), "That is the shape of the image; how many pixels are in it?"),
            Mistake(28 * 28 * 8, "Those are the bits of the image: each pixel is a byte."),
            Mistake(10, "That is how many answers it can give. How many numbers does it look at?"),
        ),
        praise="Each of them is a number from 0 (background) to 255 (ink).",
    ),
}
