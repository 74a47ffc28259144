"""Recipes: what is refused, in which words, and that they survive JSON, Python and hashing."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

import compresskit as ck
from compresskit.recipe import (
    ACTIVATION_BITS,
    ACTIVATION_RANGES,
    CONVOLUTIONS,
    IMPORTANCES,
    RANGES,
    SCOPES,
    SHARE_GRANULARITIES,
    SHARE_METHODS,
    STARTS,
    STORES,
    WEIGHT_BITS,
)

NAMES = st.text(alphabet="abcxyz_0123456789", min_size=1, max_size=8)


def allowed(weights: int, activations: int) -> bool:
    """Which widths go together, written down a second time: the table of the documentation."""
    return {
        32: weights in (32, 16, 8, 7, 6, 5, 4, 3, 2),
        16: weights == 8,
        8: weights in (8, 7, 6, 5, 4, 3),
    }[activations]


@st.composite
def prunes(draw: st.DrawFn) -> ck.Prune:
    layers = draw(st.none() | st.lists(NAMES, min_size=1, max_size=3))
    pattern = draw(st.sampled_from(["unstructured", "2:4", "1:4", "block 4x4"]))
    return ck.Prune(
        None if ":" in pattern else draw(st.floats(0, 0.999)),
        scope=draw(st.sampled_from(SCOPES)) if pattern == "unstructured" else "layer",
        layers=layers,
        importance=draw(st.sampled_from(IMPORTANCES)),
        pattern=pattern,
        seed=draw(st.integers(0, 9)),
    )


@st.composite
def quantizes(draw: st.DrawFn) -> ck.Quantize:
    activations = draw(st.sampled_from([8, 32]))
    widths = st.sampled_from([bits for bits in WEIGHT_BITS if allowed(bits, activations)])
    layer = st.fixed_dictionaries(
        {"weights": widths},
        optional={
            "store": st.sampled_from(STORES),
            "granularity": st.sampled_from(["channel", "tensor"]),
            "ranges": st.sampled_from(RANGES),
        },
    )
    return ck.Quantize(
        draw(widths),
        activations,
        granularity=draw(st.sampled_from(["channel", "tensor"])),
        ranges=draw(st.sampled_from(RANGES)),
        layers=draw(st.dictionaries(NAMES, layer, max_size=3)),
        calibration_digits=draw(st.integers(1, 1000)),
        activation_ranges=draw(st.sampled_from(ACTIVATION_RANGES)),
        io="same" if activations == 32 else draw(st.sampled_from(["same", "uint8", "float32"])),
        skip=draw(st.just(()) | st.just(("left_float",))),
    )


@st.composite
def shares(draw: st.DrawFn) -> ck.Share:
    method = draw(st.sampled_from(SHARE_METHODS))
    levels = {"binary": st.none(), "ternary": st.just(3), "uniform": st.sampled_from([2, 4, 16, 256])}
    return ck.Share(
        draw(levels.get(method, st.integers(3, 300))),
        method if method != "binary" else "ternary",
        start=draw(st.sampled_from(STARTS)),
        granularity=draw(st.sampled_from(SHARE_GRANULARITIES)),
        keep_zero=draw(st.booleans()),
        layers=draw(st.none() | st.lists(NAMES, min_size=1, max_size=3)),
        seed=draw(st.integers(0, 9)),
    )


@st.composite
def factorizes(draw: st.DrawFn) -> ck.Factorize:
    how = draw(st.sampled_from(["rank", "energy", "budget"]))
    far = {"rank": st.integers(1, 500), "energy": st.floats(0.01, 1), "budget": st.floats(0.01, 0.99)}[how]
    return ck.Factorize(
        **{how: draw(far)},
        convolutions=draw(st.sampled_from(CONVOLUTIONS)),
        layers=draw(st.none() | st.lists(NAMES, min_size=1, max_size=3)),
    )


recipes = st.builds(
    lambda factorizing, pruning, sharing, quantizing: ck.Recipe(*factorizing, *pruning, *sharing, *quantizing),
    st.lists(factorizes(), max_size=1),
    st.lists(prunes(), max_size=2),
    st.lists(shares(), max_size=1),
    st.lists(quantizes(), max_size=1),
)


@given(recipes)
def test_json_and_back_is_the_same_recipe(recipe: ck.Recipe) -> None:
    again = ck.Recipe.from_json(recipe.to_json())
    assert again == recipe
    assert hash(again) == hash(recipe)
    assert again.to_json() == recipe.to_json()


@given(recipes)
def test_the_python_shown_makes_the_same_recipe(recipe: ck.Recipe) -> None:
    assert eval(recipe.to_python(), {"ck": ck}) == recipe


@given(recipes)
def test_pickle_and_back_is_the_same_recipe(recipe: ck.Recipe) -> None:
    assert pickle.loads(pickle.dumps(recipe)) == recipe


@pytest.mark.parametrize("weights", WEIGHT_BITS)
@pytest.mark.parametrize("activations", ACTIVATION_BITS)
def test_exactly_the_widths_that_go_together_are_accepted(weights: int, activations: int) -> None:
    if allowed(weights, activations):
        assert ck.Quantize(weights, activations).for_layer("any").weights == weights
    else:
        with pytest.raises(ValueError, match=rf"Quantize: .*{activations}.*{weights}.*choose|Quantize: .*{weights}"):
            ck.Quantize(weights, activations)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ck.Prune(1.2), "Prune: sparsity is 1.2"),
        (lambda: ck.Prune(1.0), "Prune: sparsity is 1.0"),
        (lambda: ck.Prune(-0.1), "Prune: sparsity is -0.1"),
        (lambda: ck.Prune(float("nan")), "Prune: sparsity is nan"),
        (lambda: ck.Prune(True), "Prune: sparsity is True"),
        (lambda: ck.Prune("0.5"), "Prune: sparsity is '0.5'"),
        (lambda: ck.Prune(0.5, scope="world"), "Prune: scope is 'world'; choose one of 'layer', 'global'"),
        (lambda: ck.Prune(), "Prune: sparsity is None"),
        (lambda: ck.Prune(0.3, pattern="2:4"), "the pattern 2:4 removes exactly 0.5"),
        (lambda: ck.Prune(0.3, pattern="checked"), "Prune: pattern is 'checked'; choose 'unstructured'"),
        (lambda: ck.Prune(0.3, pattern="5:4"), "Prune: "),
        (lambda: ck.Prune(0.3, importance="luck"), "Prune: importance is 'luck'"),
        (lambda: ck.Prune(0.3, seed=-1), "Prune: seed is -1"),
        (lambda: ck.Prune(0.3, scope="global", pattern="channel"), "scope is 'global' with pattern 'channel'"),
        (lambda: ck.Recipe(ck.Prune(0.5), ck.Prune(0.5, pattern="channel")), "remove channels first"),
        (lambda: ck.Prune(0.5, layers="conv1"), "Prune: layers is 'conv1'"),
        (lambda: ck.Prune(0.5, layers=[]), "Prune: layers is"),
        (lambda: ck.Share(0), "Share: levels is 0; give a whole number from 1"),
        (lambda: ck.Share(1, "uniform"), "Share: levels is 1; give a whole number from 2"),
        (lambda: ck.Share(2, "powers"), "Share: levels is 2; give a whole number from 3"),
        (lambda: ck.Share(70_000), "Share: levels is 70000"),
        (lambda: ck.Share(16.0), "Share: levels is 16.0"),
        (lambda: ck.Share(True), "Share: levels is True"),
        (lambda: ck.Share(15, "uniform"), "Share: levels is 15 with method 'uniform'; give an even number"),
        (lambda: ck.Share(3, "binary"), "method 'binary' has 2; leave the levels out"),
        (lambda: ck.Share(method="median"), "Share: method is 'median'; choose one of 'kmeans', 'exact'"),
        (lambda: ck.Share(start="middle"), "Share: start is 'middle'"),
        (lambda: ck.Share(granularity="tensor"), "Share: granularity is 'tensor'; choose one of 'layer', 'channel'"),
        (lambda: ck.Share(keep_zero=1), "Share: keep_zero is 1"),
        (lambda: ck.Share(seed=-1), "Share: seed is -1"),
        (lambda: ck.Share(layers="dense"), "Share: layers is 'dense'"),
        (lambda: ck.Factorize(), "Factorize: nothing was given"),
        (lambda: ck.Factorize(4, energy=0.5), "Factorize: rank and energy was given"),
        (lambda: ck.Factorize(0), "Factorize: rank is 0"),
        (lambda: ck.Factorize(1.5), "Factorize: rank is 1.5"),
        (lambda: ck.Factorize(energy=float("nan")), "Factorize: energy is nan"),
        (lambda: ck.Factorize(energy=1.1), "Factorize: energy is 1.1"),
        (lambda: ck.Factorize(budget=1), "Factorize: budget is 1; give a part above 0 and below 1"),
        (lambda: ck.Factorize(4, convolutions="svd"), "Factorize: convolutions is 'svd'"),
        (lambda: ck.Recipe(ck.Share(), ck.Share(layers=["a"])), "Share twice; give each its layers"),
        (lambda: ck.Recipe(ck.Share(layers=["a"]), ck.Share(layers=["b", "a"])), "Share twice for layer 'a'"),
        (lambda: ck.Recipe(ck.Share(), ck.Prune(0.5)), "Prune after Share; its result would no longer be shared"),
        (lambda: ck.Recipe(ck.Quantize(), ck.Share()), "Share after Quantize; the weights are integers by then"),
        (
            lambda: ck.Recipe(ck.Prune(0.5), ck.Factorize(4)),
            "Factorize after Prune; the products of thinner layers would not stay sparse",
        ),
        (lambda: ck.Recipe(ck.Factorize(4), ck.Prune(0.5, pattern="channel")), "remove channels first"),
        (lambda: ck.Recipe(ck.Prune(0.5), ck.Share(method="binary")), "method 'binary' after Prune; it has no zero"),
        (lambda: ck.Quantize(weights=9), "Quantize: weights is 9"),
        (lambda: ck.Quantize(activations=4), "Quantize: activations is 4"),
        (lambda: ck.Quantize(granularity="row"), "Quantize: granularity is 'row'"),
        (lambda: ck.Quantize(ranges="guess"), "Quantize: ranges is 'guess'"),
        (lambda: ck.Quantize(calibration_digits=0), "Quantize: calibration_digits is 0"),
        (lambda: ck.Quantize(4, 16), "activations of 16 bits with weights of 4"),
        (lambda: ck.Quantize(2, 8), "activations of 8 bits with weights of 2"),
        (lambda: ck.Quantize(layers={"head": {"bits": 4}}), "layer 'head' has the setting 'bits'"),
        (lambda: ck.Quantize(layers={"head": {"weights": 2}}), "layer 'head': activations of 8 bits with weights of 2"),
        (lambda: ck.Quantize(layers={"a": {"activations": 16}}), "activations of 8 and of 16 bits in one model"),
        (lambda: ck.Quantize(layers=["head"]), "Quantize: layers is"),
        (lambda: ck.Quantize(8, 32, granularity="block32"), "blocks for weights of 4 bits"),
        (lambda: ck.Quantize(4, 8, granularity="block32"), "blocks for weights of 4 bits"),
        (lambda: ck.Quantize(8, 8, compute="float"), "compute is 'float' with weights of 8 bits and activations of 8"),
        (lambda: ck.Quantize(2, 32, compute="float"), "compute is 'float' with weights of 2 bits"),
        (lambda: ck.Quantize(8, 32, io="uint8"), "io is 'uint8' with float activations"),
        (lambda: ck.Quantize(8, 16, io="uint8"), "io is 'uint8' with activations of 16 bits"),
        (lambda: ck.Quantize(io="int4"), "io is 'int4'; choose one of 'same', 'uint8', 'float32'"),
        (lambda: ck.Quantize(activation_ranges="guess"), "activation_ranges is 'guess'"),
        (lambda: ck.Quantize(skip=["a"], layers={"a": {"weights": 4}}), "layer 'a' stands in skip and in layers"),
        (lambda: ck.Recipe(ck.Quantize(), ck.Prune(0.5)), "Prune after Quantize"),
        (lambda: ck.Recipe(ck.Quantize(), ck.Quantize()), "Quantize twice"),
        (lambda: ck.Recipe("prune"), "'prune' is not a step"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(make, words) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError) as refused:
        make()
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ("[]", "no list 'steps'"),
        ('{"steps": [], "version": 99}', "version is 99"),
        ('{"steps": [{"step": "melt"}], "version": 1}', "the step 'melt' is not known"),
        ('{"steps": [{"step": "prune", "sparsity": 0.5, "speed": 1}], "version": 1}', "the setting 'speed'"),
        ('{"steps": [{"step": "prune"}], "version": 1}', "sparsity"),
        ('{"steps": [{"step": "prune", "sparsity": 2}], "version": 1}', "sparsity is 2"),
    ],
)
def test_json_that_is_no_recipe_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError) as refused:
        ck.Recipe.from_json(text)
    assert words in str(refused.value)


def test_the_settings_of_a_recipe_cannot_be_changed_afterwards() -> None:
    layers = {"head": {"weights": 4}}
    quantize = ck.Quantize(layers=layers)
    layers["head"]["weights"] = 8
    assert quantize.for_layer("head").weights == 4
    with pytest.raises(TypeError):
        quantize.layers["head"]["weights"] = 8  # type: ignore[index]


def test_settings_of_a_layer_fall_back_on_those_of_the_model() -> None:
    quantize = ck.Quantize(8, 8, ranges="mse", layers={"dense": {"weights": 4}})
    assert (quantize.for_layer("dense").weights, quantize.for_layer("dense").ranges) == (4, "mse")
    assert quantize.for_layer("conv1").weights == 8
