"""Distillation losses are their formulas, and their gradients are the slopes one measures."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special, stats

from compresskit import distillation

NUMBERS = st.floats(-30, 30)
TEMPERATURES = st.floats(0.3, 50)
TEACHER = [[0.8, 0.2], [0.6, 0.4]]
STUDENT = [[0.6, 0.4], [0.5, 0.5]]


@st.composite
def batches(draw, largest=30.0):
    """Draw teacher logits, student logits and labels."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(2, 6)))
    numbers = st.floats(-largest, largest)
    labels = draw(hnp.arrays(np.int64, shape[0], elements=st.integers(0, shape[1] - 1)))
    return (
        draw(hnp.arrays(np.float64, shape, elements=numbers)),
        draw(hnp.arrays(np.float64, shape, elements=numbers)),
        labels,
    )


def measured_slope(value, logits, step=1e-5):
    """Central differences: move each logit a little to both sides."""
    slope = np.empty_like(logits)
    for place in np.ndindex(logits.shape):
        up, down = logits.copy(), logits.copy()
        up[place] += step
        down[place] -= step
        slope[place] = (value(up) - value(down)) / (2 * step)
    return slope


class TestSoftmax:
    @given(batches(), TEMPERATURES)
    def test_equals_scipy(self, batch, temperature):
        logits = batch[0]
        np.testing.assert_allclose(
            distillation.softmax(logits, temperature), special.softmax(logits / temperature, axis=1)
        )
        np.testing.assert_allclose(
            distillation.log_softmax(logits, temperature), special.log_softmax(logits / temperature, axis=1), atol=1e-12
        )

    def test_nothing_overflows(self):
        np.testing.assert_array_equal(distillation.softmax([[1e300, -1e300]]), [[1, 0]])
        assert np.isfinite(distillation.log_softmax([[1e6, 0.0]])).all()

    def test_hot_is_even_and_cold_is_sure(self):
        logits = [[1.0, 2.0, 4.0]]
        np.testing.assert_allclose(distillation.softmax(logits, 1e6), [[1 / 3] * 3], atol=1e-5)
        np.testing.assert_allclose(distillation.softmax(logits, 0.01), [[0, 0, 1]], atol=1e-12)

    @pytest.mark.parametrize("temperature", [0, -1, float("nan"), float("inf")])
    def test_refuses_a_temperature(self, temperature):
        with pytest.raises(ValueError, match="temperature is"):
            distillation.softmax([[1.0, 2.0]], temperature)

    def test_refuses_nan(self):
        with pytest.raises(ValueError, match="logits holds NaN"):
            distillation.softmax([[1.0, np.nan]])


class TestEntropy:
    @given(batches())
    def test_equals_scipy(self, batch):
        p = distillation.softmax(batch[0])
        np.testing.assert_allclose(distillation.entropy(p), stats.entropy(p, base=2, axis=1), atol=1e-9)

    def test_extremes(self):
        np.testing.assert_allclose(distillation.entropy([[1, 0, 0, 0], [0.25] * 4]), [0, 2])

    def test_refuses_what_is_no_distribution(self):
        with pytest.raises(ValueError, match="not probabilities"):
            distillation.entropy([[0.5, 0.6]])


class TestProbabilities:
    def test_half_squared_error_of_the_tutorials(self):
        assert distillation.half_squared_error(TEACHER, STUDENT) == pytest.approx(0.05)

    @given(batches())
    def test_kl_equals_scipy(self, batch):
        p, q = distillation.softmax(batch[0]), distillation.softmax(batch[1])
        assert distillation.kl_divergence(p, q) == pytest.approx(stats.entropy(p, q, axis=1).mean(), rel=1e-6, abs=1e-9)

    def test_kl_where_somebody_is_sure(self):
        assert distillation.kl_divergence([[1.0, 0.0]], [[0.5, 0.5]]) == pytest.approx(np.log(2))
        assert distillation.kl_divergence([[0.5, 0.5]], [[1.0, 0.0]]) == np.inf
        assert distillation.kl_divergence([[1.0, 0.0]], [[1.0, 0.0]]) == 0


class TestLosses:
    @given(batches(), TEMPERATURES)
    def test_kl_loss_is_the_divergence_times_t_squared(self, batch, temperature):
        teacher, student, _ = batch
        p, q = (special.softmax(logits / temperature, axis=1) for logits in (teacher, student))
        expected = temperature**2 * special.rel_entr(p, q).sum(axis=1).mean()
        assert distillation.kl_loss(teacher, student, temperature) == pytest.approx(expected, rel=1e-6, abs=1e-9)

    @given(batches(), TEMPERATURES)
    def test_cross_entropy_is_kl_and_the_teachers_entropy(self, batch, temperature):
        teacher, student, _ = batch
        own = temperature**2 * np.log(2) * distillation.entropy(distillation.softmax(teacher, temperature)).mean()
        assert distillation.cross_entropy_loss(teacher, student, temperature) == pytest.approx(
            distillation.kl_loss(teacher, student, temperature) + own, rel=1e-9, abs=1e-9
        )

    def test_squared_losses_by_hand(self):
        teacher, student = [[1.0, 2.0]], [[3.0, 1.0]]
        assert distillation.logit_loss(teacher, student) == pytest.approx(2.5)
        log_teacher, log_student = np.log(TEACHER), np.log(STUDENT)
        assert distillation.probability_loss(log_teacher, log_student) == pytest.approx(0.1 / 4)

    @given(batches(largest=5.0), st.floats(0.5, 20), st.sampled_from(sorted(distillation.LOSSES)))
    def test_gradient_is_the_measured_slope(self, batch, temperature, name):
        teacher, student, _ = batch
        loss = distillation.LOSSES[name]
        slope = measured_slope(lambda logits: loss.value(teacher, logits, temperature), student)
        np.testing.assert_allclose(loss.gradient(teacher, student, temperature), slope, rtol=1e-4, atol=1e-7)

    @given(batches(largest=5.0), st.floats(0, 1))
    def test_label_gradient_is_the_measured_slope(self, batch, smoothing):
        _, student, labels = batch
        slope = measured_slope(lambda logits: distillation.label_loss(labels, logits, smoothing), student)
        np.testing.assert_allclose(distillation.label_gradient(labels, student, smoothing), slope, rtol=1e-4, atol=1e-7)

    @given(batches(largest=5.0), st.floats(0.5, 20), st.floats(0, 1), st.sampled_from(sorted(distillation.LOSSES)))
    def test_mixture_and_its_gradient(self, batch, temperature, alpha, name):
        teacher, student, labels = batch

        def value(logits):
            return distillation.distillation_loss(teacher, logits, labels, temperature, alpha, name)

        parts = distillation.LOSSES[name].value(teacher, student, temperature), distillation.label_loss(labels, student)
        assert value(student) == pytest.approx(alpha * parts[0] + (1 - alpha) * parts[1])
        gradient = distillation.distillation_gradient(teacher, student, labels, temperature, alpha, name)
        np.testing.assert_allclose(gradient, measured_slope(value, student), rtol=1e-4, atol=1e-7)

    @given(batches(largest=4.0))
    def test_hot_kl_becomes_squared_logits(self, batch):
        """The distance to the limit shrinks as 1/T."""
        teacher, student, _ = batch
        limit = distillation.high_temperature_limit(teacher, student)
        for temperature in (1e2, 1e3, 1e4):
            assert distillation.kl_loss(teacher, student, temperature) == pytest.approx(
                limit, abs=400 / temperature + 1e-6
            )

    def test_limit_is_half_the_logit_loss_of_centred_logits(self):
        rng = np.random.default_rng(0)
        teacher, student = (z - z.mean(axis=1, keepdims=True) for z in rng.normal(size=(2, 5, 10)))
        limit = distillation.high_temperature_limit(teacher, student)
        assert limit == pytest.approx(distillation.logit_loss(teacher, student) / 2)

    @pytest.mark.parametrize("name", sorted(distillation.LOSSES))
    def test_a_perfect_student_has_nothing_to_learn(self, name):
        logits = np.random.default_rng(1).normal(size=(3, 10))
        np.testing.assert_allclose(distillation.LOSSES[name].gradient(logits, logits, 3.0), 0, atol=1e-15)

    @pytest.mark.parametrize(
        "function", [distillation.kl_loss, distillation.logit_gradient, distillation.kl_divergence]
    )
    def test_refuses_other_classes_and_no_samples(self, function):
        with pytest.raises(ValueError, match=r"teacher has shape \(2, 3\) and student \(2, 4\)"):
            function(np.ones((2, 3)), np.ones((2, 4)))
        with pytest.raises(ValueError, match="at least one sample"):
            function(np.ones((0, 3)), np.ones((0, 3)))

    @pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
    def test_refuses_alpha(self, alpha):
        with pytest.raises(ValueError, match="alpha is"):
            distillation.distillation_loss([[1.0, 2]], [[1.0, 2]], [0], alpha=alpha)

    def test_refuses_another_loss(self):
        with pytest.raises(ValueError, match="loss is 'l3'; choose one of 'kl'"):
            distillation.distillation_loss([[1.0, 2]], [[1.0, 2]], [0], loss="l3")


class TestLabels:
    def test_smoothing_by_hand(self):
        np.testing.assert_allclose(
            distillation.smooth_labels([2, 0], 4, 0.2), [[0.05, 0.05, 0.85, 0.05], [0.85, 0.05, 0.05, 0.05]]
        )

    def test_label_loss_equals_the_log_of_the_true_class(self):
        logits = np.random.default_rng(2).normal(size=(6, 3))
        labels = np.array([0, 1, 2, 2, 1, 0])
        expected = -np.mean([special.log_softmax(row)[label] for row, label in zip(logits, labels, strict=True)])
        assert distillation.label_loss(labels, logits) == pytest.approx(expected)

    @pytest.mark.parametrize(
        ("labels", "smoothing", "message"),
        [
            ([0, 10], 0.0, "labels holds 0 to 10; with 10 classes"),
            ([-1], 0.0, "labels holds -1"),
            ([], 0.0, "one whole number"),
            ([0.5], 0.0, "dtype float64"),
            ([0], 1.5, "smoothing is 1.5"),
        ],
    )
    def test_refuses(self, labels, smoothing, message):
        with pytest.raises(ValueError, match=message):
            distillation.smooth_labels(labels, 10, smoothing)

    def test_missing_classes(self):
        assert distillation.missing_classes([0, 1, 1, 4], 5) == (2, 3)
        assert distillation.missing_classes(range(10), 10) == ()


@pytest.mark.train
@pytest.mark.parametrize("seed", range(5))
def test_kl_and_labels_equal_keras(seed):
    """What a Keras training loop would compute, loss and gradient, by automatic differentiation."""
    tf = pytest.importorskip("tensorflow")
    keras = pytest.importorskip("tf_keras")
    rng = np.random.default_rng(seed)
    teacher, student = rng.normal(scale=3, size=(2, 7, 10))
    labels = rng.integers(0, 10, size=7)
    temperature, alpha = float(rng.uniform(0.5, 20)), float(rng.uniform())
    variable = tf.Variable(student)
    with tf.GradientTape() as tape:
        soft = keras.losses.KLDivergence()(tf.nn.softmax(teacher / temperature), tf.nn.softmax(variable / temperature))
        hard = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, variable)
        loss = alpha * temperature**2 * tf.cast(soft, tf.float64) + (1 - alpha) * tf.cast(hard, tf.float64)
    # Keras clips probabilities at 1e-7.
    arguments = (teacher, student, labels, temperature, alpha)
    assert distillation.distillation_loss(*arguments) == pytest.approx(float(loss), rel=1e-3)
    np.testing.assert_allclose(
        distillation.distillation_gradient(*arguments), tape.gradient(loss, variable).numpy(), rtol=1e-3, atol=1e-5
    )
