"""Exercises of lesson 08: masks of blocks and of 2:4, MACs, channels of a flattened picture, half the work."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from compresskit.compression import Compressed, compress
from compresskit.course.checks import Case, Exercise, Mistake
from compresskit.data import load_mnist
from compresskit.evaluation import evaluate
from compresskit.recipe import Prune, Recipe
from compresskit.zoo import load_model

# -- blocks -------------------------------------------------------------------------------------------------------


def block_mask(w: Any, rows: int, columns: int, sparsity: float) -> Any:
    """Keep the blocks with the largest sums of absolute weights, exactly so many."""
    return _by_block_scores(w, rows, columns, sparsity, lambda blocks: np.abs(blocks).sum(axis=(1, 3)))


def _by_block_scores(w: Any, rows: int, columns: int, sparsity: float, score: Any, count: Any = round) -> Any:
    blocks = w.reshape(w.shape[0] // rows, rows, w.shape[1] // columns, columns)
    scores = score(blocks)
    kept = np.ones(scores.size, bool)
    kept[np.argsort(scores, axis=None, kind="stable")[: count(sparsity * scores.size)]] = False
    return np.repeat(np.repeat(kept.reshape(scores.shape), rows, axis=0), columns, axis=1)


def _matrices(rng: np.random.Generator) -> Iterator[Case]:
    first = np.array([[9.0, -9.0, 1.0, 2.0], [1.0, 1.0, 2.0, 1.0], [-5.0, -4.0, 0.0, 3.0], [-6.0, -7.0, 1.0, 0.5]])
    yield (first, 2, 2, 0.5)
    yield (first, 1, 4, 0.0)
    for down, right, rows, columns, sparsity in (
        (4, 3, 1, 4, 0.65), (3, 4, 4, 4, 0.55), (2, 6, 16, 1, 0.4), (5, 5, 2, 3, 0.71), (2, 5, 4, 1, 0.85),
    ):  # fmt: skip
        yield (rng.normal(0, 1, (down * rows, right * columns)).round(4), rows, columns, sparsity)


def _single(w: Any, rows: int, columns: int, sparsity: float) -> Any:
    return _by_block_scores(w, 1, 1, sparsity, lambda blocks: np.abs(blocks).sum(axis=(1, 3)))


def _cut_wrongly(w: Any, rows: int, columns: int, sparsity: float) -> Any:
    scores = np.abs(w).reshape(-1, rows * columns).sum(axis=1)
    kept = np.ones(scores.size, bool)
    kept[np.argsort(scores, kind="stable")[: round(sparsity * scores.size)]] = False
    return np.repeat(kept, rows * columns).reshape(w.shape)


def _by_quantile(w: Any, rows: int, columns: int, sparsity: float) -> Any:
    blocks = np.abs(w.reshape(w.shape[0] // rows, rows, w.shape[1] // columns, columns)).sum(axis=(1, 3))
    return np.repeat(np.repeat(blocks > np.quantile(blocks, sparsity), rows, axis=0), columns, axis=1)


def _sums(blocks: Any) -> Any:
    return np.abs(blocks).sum(axis=(1, 3))


BLOCK_MASK = Exercise(
    reference=block_mask,
    cases=_matrices,
    mistakes=(
        Mistake(
            lambda w, rows, columns, sparsity: ~block_mask(w, rows, columns, sparsity),
            "The mask is turned round: True is for what stays.",
        ),
        Mistake(
            _single,
            "These are single weights, not blocks: add the absolute weights of each block first, then compare blocks.",
        ),
        Mistake(
            lambda w, rows, columns, sparsity: _by_block_scores(
                w, rows, columns, sparsity, lambda blocks: np.abs(blocks.sum(axis=(1, 3)))
            ),
            "Weights of opposite signs cancel in your sums: take absolute values before adding, not after.",
        ),
        Mistake(
            lambda w, rows, columns, sparsity: _by_block_scores(
                w, rows, columns, sparsity, lambda blocks: blocks.sum(axis=(1, 3))
            ),
            "A weight of -9 counts as little here as one of 9 counts much: add absolute values.",
        ),
        Mistake(
            lambda w, rows, columns, sparsity: _by_block_scores(
                w, rows, columns, sparsity, lambda blocks: np.abs(blocks).max(axis=(1, 3))
            ),
            "Your blocks are as good as their largest weight; here they are as good as the sum of all.",
        ),
        Mistake(
            _cut_wrongly,
            "`reshape(-1, rows * columns)` cuts the rows into strips, not the matrix into rectangles: make it "
            "`w.reshape(w.shape[0] // rows, rows, w.shape[1] // columns, columns)` and add over axes 1 and 3.",
        ),
        Mistake(
            lambda w, rows, columns, sparsity: _by_block_scores(w, rows, columns, 1 - sparsity, _sums),
            "Sparsity is what goes; you keep that part.",
        ),
        Mistake(
            lambda w, rows, columns, sparsity: _by_block_scores(w, rows, columns, sparsity, lambda b: -_sums(b)),
            "You remove the strongest blocks and keep the weakest.",
        ),
        Mistake(
            lambda w, rows, columns, sparsity: _by_block_scores(w, rows, columns, sparsity, _sums, int),
            "One block too few goes now and then: `int` cuts off, `round` is asked for.",
        ),
        Mistake(
            _by_quantile,
            "A threshold from `np.quantile` does not always remove the exact number: sort the blocks, and take the "
            "first `round(sparsity * blocks)` of them.",
        ),
        Mistake(
            lambda w, rows, columns, sparsity: w * block_mask(w, rows, columns, sparsity),
            "These are the pruned weights; the mask itself is asked for, True and False.",
        ),
    ),
    praise="With rows = columns = 1 it is the mask of lesson 07, and with whole rows it chooses channels.",
)


# -- two of four --------------------------------------------------------------------------------------------------


def two_of_four(w: Any) -> Any:
    """Keep the two largest absolute weights of every four neighbours in a row."""
    return _n_of_groups(np.abs(w))


def _n_of_groups(scores: Any, n: int = 2) -> Any:
    groups = scores.reshape(-1, 4)
    mask = np.zeros(groups.shape, bool)
    np.put_along_axis(mask, np.argsort(groups, axis=1)[:, 4 - n :], True, axis=1)
    return mask.reshape(scores.shape)


def _fours(rng: np.random.Generator) -> Iterator[Case]:
    yield (np.array([[0.1, -0.9, 0.5, 0.2], [4.0, 3.0, 2.0, 1.0], [-1.0, -2.0, 3.0, 4.0], [0.4, 0.3, -0.2, 0.1]]),)
    for rows, columns in ((4, 8), (8, 16), (12, 4), (4, 24)):
        yield (rng.normal(0, 1, (rows, columns)).round(4),)


def _every_fourth(w: Any) -> Any:
    columns = w.shape[1]
    order = np.arange(columns).reshape(4, -1).T.reshape(-1)
    mask = np.zeros(w.shape, bool)
    mask[:, order] = two_of_four(w[:, order])
    return mask


def _half_of_all(w: Any) -> Any:
    mask = np.zeros(w.size, bool)
    mask[np.argsort(np.abs(w), axis=None)[w.size // 2 :]] = True
    return mask.reshape(w.shape)


TWO_OF_FOUR = Exercise(
    reference=two_of_four,
    cases=_fours,
    mistakes=(
        Mistake(lambda w: ~two_of_four(w), "You keep the two smallest of four; True is for what stays."),
        Mistake(lambda w: _n_of_groups(w), "Without absolute values a weight of -2 goes before one of 0.1."),
        Mistake(
            lambda w: two_of_four(w.T).T,
            "Your groups run down the columns. Hardware reads along a row, the inputs of one output: group there.",
        ),
        Mistake(
            _half_of_all,
            "Half of all weights go, but not two of *each* four: some groups keep three or four, and hardware that "
            "has room for two cannot take them.",
        ),
        Mistake(
            _every_fourth,
            "Your groups are every so many-th weight of a row. Four *neighbours* make a group: `w.reshape(-1, 4)`.",
        ),
        Mistake(lambda w: _n_of_groups(np.abs(w), 3), "Three of four stay: this is 3:4. 2:4 keeps two."),
        Mistake(lambda w: _n_of_groups(np.abs(w), 1), "One of four stays: this is 1:4. 2:4 keeps two."),
        Mistake(lambda w: w * two_of_four(w), "These are the pruned weights; the mask is asked for, True and False."),
    ),
    praise="Two bits for each weight that stays say where it stood: 2:4 is stored in 9/16 of the bytes of half floats, "
    "where hardware reads it.",
)


# -- MACs ---------------------------------------------------------------------------------------------------------


def chain_macs(inputs: int, layers: Any, part: float) -> int:
    """Count the MACs of a chain of layers of which each but the last has lost part of its outputs."""
    return _chain(inputs, layers, part)


def _chain(
    inputs: int, layers: Any, part: float, *, reads_less: bool = True, last_too: bool = False, count: Any = round
) -> int:
    total, flowing = 0, inputs
    for number, (places, window, outputs) in enumerate(layers):
        cut = number < len(layers) - 1 or last_too
        left = outputs - count(part * outputs) if cut else outputs
        total += places * window * flowing * left
        flowing = left if reads_less else outputs
    return int(total)


def _chains(rng: np.random.Generator) -> Iterator[Case]:
    yield (1, [(784, 9, 32), (196, 9, 64), (1, 49, 128), (1, 1, 10)], 0.3)
    yield (3, [(100, 9, 10), (1, 1, 7)], 0.5)
    yield (1, [(4, 1, 6)], 0.5)  # the last layer keeps its outputs
    for _ in range(5):
        depth = int(rng.integers(2, 5))
        layers = [(int(rng.integers(1, 200)), int(rng.integers(1, 10)), int(rng.integers(5, 60))) for _ in range(depth)]
        yield (int(rng.integers(1, 4)), layers, round(float(rng.uniform(0.1, 0.8)), 2))


def _whole(inputs: int, layers: Any) -> int:
    return _chain(inputs, layers, 0.0)


CHAIN_MACS = Exercise(
    reference=chain_macs,
    cases=_chains,
    mistakes=(
        Mistake(
            lambda inputs, layers, part: _chain(inputs, layers, part, reads_less=False),
            "Each layer puts out less, but here it still reads all the channels that the layer before used to make.",
        ),
        Mistake(
            lambda inputs, layers, part: _chain(inputs, layers, part, last_too=True),
            "The last layer has its ten answers to give: it keeps all its outputs.",
        ),
        Mistake(
            lambda inputs, layers, part: round((1 - part) ** 2 * _whole(inputs, layers)),
            "(1 - part)² holds for a layer between two others. The first one reads as much as before, and the last one "
            "puts out as much as before: go through the layers one by one.",
        ),
        Mistake(
            lambda inputs, layers, part: round((1 - part) * _whole(inputs, layers)),
            "That is the part of the *channels* that stays. A layer loses outputs and inputs: go through the layers.",
        ),
        Mistake(
            lambda inputs, layers, part: _whole(inputs, layers),
            "These are the MACs before anything was removed.",
        ),
        Mistake(
            lambda inputs, layers, part: _chain(inputs, [(p, 1, o) for p, _, o in layers], part),
            "The window is missing: an output sums over `window` places of each input channel.",
        ),
        Mistake(
            lambda inputs, layers, part: _chain(inputs, [(1, w, o) for _, w, o in layers], part),
            "That counts weights. Each of them is used once at every one of the `places`.",
        ),
        Mistake(
            lambda inputs, layers, part: _chain(inputs, layers, part, count=int),
            "`int` cuts off; `round(part * outputs)` channels go.",
        ),
        Mistake(
            lambda inputs, layers, part: _chain(inputs, layers, 1 - part),
            "`part` is what goes; you keep that part.",
        ),
    ),
    praise="A dense layer behind a flattening is a convolution whose window is the whole picture: the same formula.",
)


# -- a channel of the flattened picture ---------------------------------------------------------------------------


def without_channel(weights: Any, channels: int, gone: int) -> Any:
    """Cut an input channel out of the weights of a dense layer that reads a flattened picture."""
    return np.delete(weights, np.s_[gone::channels], axis=1)


def _flattened(rng: np.random.Generator) -> Iterator[Case]:
    yield (np.arange(12.0).reshape(2, 6), 3, 1)  # two places of three channels
    for outputs, places, channels in ((3, 4, 5), (2, 9, 4), (5, 4, 3), (4, 6, 6)):
        gone = int(rng.integers(0, channels))
        yield (rng.normal(0, 1, (outputs, places * channels)).round(2), channels, gone)


def _block_of(weights: Any, channels: int, gone: int) -> Any:
    places = weights.shape[1] // channels
    return np.delete(weights, np.s_[gone * places : (gone + 1) * places], axis=1)


def _zeroed(weights: Any, channels: int, gone: int) -> Any:
    left = weights.copy()
    left[:, gone::channels] = 0
    return left


WITHOUT_CHANNEL = Exercise(
    reference=without_channel,
    cases=_flattened,
    mistakes=(
        Mistake(
            _block_of,
            "You cut out neighbouring columns, as if all places of a channel stood together. TensorFlow flattens "
            "place by place, with all channels of a place side by side: channel c stands at c, c + channels, c + 2 "
            "channels and so on. (PyTorch has it your way round.)",
        ),
        Mistake(
            lambda weights, channels, gone: np.delete(weights, gone, axis=1),
            "One column is cut out, that of the first place. The channel is read once at every place.",
        ),
        Mistake(
            lambda weights, channels, gone: np.delete(weights, np.s_[gone * channels : (gone + 1) * channels], axis=1),
            "That removes a *place* with all its channels. Take the same channel out of every place.",
        ),
        Mistake(_zeroed, "The weights are zero, but they are still there, and still multiplied. Cut them out."),
        Mistake(
            lambda weights, channels, gone: weights[:, gone::channels],
            "These are the weights that read the channel, so those that are to go.",
        ),
        Mistake(
            lambda weights, channels, gone: np.delete(weights, gone % len(weights), axis=0),
            "A row is an *output* of this layer. The channel comes in, so columns go.",
        ),
    ),
    praise="That is what `remove_channels` does behind a RESHAPE, for every channel that goes.",
)


# -- fewer MACs, no training --------------------------------------------------------------------------------------

LARGEST_PART = 0.45
GOAL = 0.99


def examine_cheaper(answer: Any) -> tuple[bool, tuple[str, ...]]:
    """Judge a recipe for the digit reader: channels removed, few enough MACs, and right enough.

    Parameters
    ----------
    answer
        A `Recipe` of `Prune` steps that remove channels.

    Returns
    -------
    (bool, tuple of str)
        Whether it reaches the goal, and what to say.
    """
    if not isinstance(answer, Recipe):
        return False, ('Give a recipe, such as ck.Recipe(ck.Prune(0.3, pattern="channel")).',)
    if any(not isinstance(step, Prune) or step.pattern != "channel" for step in answer.steps):
        return False, ('Only steps with pattern="channel" make MACs fewer: zeros are multiplied like other numbers.',)
    model, digits = load_model("digit_reader"), load_mnist()
    try:
        small = compress(model, answer, digits.train)
    except ValueError as error:
        return False, ("There is no such file:", f"{error}.")
    part = sum(layer.macs for layer in small.layers) / sum(layer.macs for layer in model.layers)
    if part > LARGEST_PART:
        return False, (
            f"{part:.1%} of the MACs are left; at most {LARGEST_PART:.0%} are wanted.",
            _where_macs_are(small),
        )
    score = evaluate(small, digits.validation)
    told = f"{part:.1%} of the MACs, {score.accuracy:.2%} of {score.n:,} digits."
    if score.accuracy < GOAL:
        return False, (f"{told} It is cheap enough; at least {GOAL:.1%} are wanted.", _what_is_lost(small, answer))
    return True, (told,)


def _where_macs_are(small: Compressed) -> str:
    """Name the layer with most MACs, and the two places where channels can be taken from it."""
    total = sum(layer.macs for layer in small.layers)
    number = max(range(len(small.layers)), key=lambda place: small.layers[place].macs)
    layer = small.layers[number]
    before = f" and those of `{small.layers[number - 1].name}`, which it reads" if number else ""
    return (
        f"Look at `{layer.name}`: it has {layer.macs / total:.0%} of them. It loses MACs with its own channels{before}."
    )


def _what_is_lost(small: Compressed, recipe: Recipe) -> str:
    """Name the layer that has lost the largest part of its channels, or the importance, if that is chance."""
    if any(step.importance == "random" for step in recipe.prunes):
        return 'Channels were chosen by lot: importance="random" is the control. Choose by what they are worth.'
    before = small.checkpoint.layers[:-1]
    parts = {old.name: 1 - new.shape[0] / old.shape[0] for old, new in zip(before, small.layers, strict=False)}
    worst = max(parts, key=lambda name: parts[name])
    chosen = ", ".join(sorted({step.importance for step in recipe.prunes}))
    return (
        f"Look at `{worst}`: {parts[worst]:.0%} of its channels are gone, the largest part of all layers; take less "
        f"there. And there are other ways to choose channels than {chosen}."
    )


CHEAPER = Exercise(
    reference=Recipe(
        Prune(0.3, pattern="channel", layers=("conv1", "dense")),
        Prune(0.38, pattern="channel", layers=("conv2",), importance="activation"),
    ),
    examine=examine_cheaper,
    mistakes=(
        Mistake(
            Recipe(Prune(0.3, pattern="channel")),
            "Look at `conv2`: it has 83% of them. It loses MACs with its own channels and those of `conv1`, which it "
            "reads.",
        ),
        Mistake(
            Recipe(Prune(0.6, pattern="channel", layers=("conv2",)), Prune(0.2, pattern="channel", layers=("conv1",))),
            "Look at `conv2`: 59% of its channels are gone, the largest part of all layers; take less there. And there "
            "are other ways to choose channels than magnitude.",
        ),
        Mistake(
            Recipe(Prune(0.4, pattern="channel", importance="random")),
            'Channels were chosen by lot: importance="random" is the control. Choose by what they are worth.',
        ),
        Mistake(
            Recipe(Prune(0.9)),
            'Only steps with pattern="channel" make MACs fewer: zeros are multiplied like other numbers.',
        ),
        Mistake(Recipe(Prune(0.99, pattern="channel")), "There is no such file:"),
        Mistake(Recipe(Prune(0.2, pattern="channel", layers=("head",))), "There is no such file:"),
        Mistake(0.4, 'Give a recipe, such as ck.Recipe(ck.Prune(0.3, pattern="channel")).'),
    ),
    praise="Less than half of the work, and nothing was trained yet.",
)

EXERCISES = {
    "block_mask": BLOCK_MASK,
    "two_of_four": TWO_OF_FOUR,
    "chain_macs": CHAIN_MACS,
    "without_channel": WITHOUT_CHANNEL,
    "cheaper": CHEAPER,
}
