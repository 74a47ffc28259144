"""What a student learns from its teacher: temperatures and losses, as arithmetic.

A network's *logits* z are what its last layer computes; softmax turns them into probabilities. A temperature T > 1
softens these, so that the wrong classes show how likely the teacher finds each: its dark knowledge.

Logits and probabilities are arrays of shape (n, K): n samples, K classes. Losses are floats, in nats where they are
made of logarithms, and averaged over samples. Each has a gradient by the student's logits, of shape (n, K).

Hinton, Vinyals and Dean (2015), *Distilling the knowledge in a neural network*, arXiv:1503.02531.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Matrix: TypeAlias = NDArray[np.float64]


def softmax(logits: ArrayLike, temperature: float = 1.0) -> Matrix:
    """Turn logits into probabilities: ``exp(z_i / T) / Σ_j exp(z_j / T)``.

    Parameters
    ----------
    logits : array_like, shape (..., K)
        Finite; any size, nothing overflows.
    temperature : float, optional
        T > 0. Below 1 the probabilities sharpen towards the largest logit, above 1 they even out.

    Returns
    -------
    ndarray of float64, shape (..., K)
        Not negative, each row adds up to 1.

    Raises
    ------
    ValueError
        If the temperature is not above 0, or a logit is not finite.
    """
    return np.exp(log_softmax(logits, temperature))


def log_softmax(logits: ArrayLike, temperature: float = 1.0) -> Matrix:
    """Return the logarithms of `softmax`, exact also where a probability is too small for a float.

    Parameters
    ----------
    logits : array_like, shape (..., K)
        Finite.
    temperature : float, optional
        T > 0.

    Returns
    -------
    ndarray of float64, shape (..., K)
        In nats, <= 0.

    Raises
    ------
    ValueError
        If the temperature is not above 0, or a logit is not finite.
    """
    if not (temperature > 0 and np.isfinite(temperature)):
        raise ValueError(
            f"temperature is {temperature!r}; choose a number above 0 (1 changes nothing, 20 is very soft)"
        )
    z = np.asarray(logits, dtype=np.float64)
    if not np.all(np.isfinite(z)):
        raise ValueError("logits holds NaN or infinity; look at the network that computed them")
    scaled = (z - z.max(axis=-1, keepdims=True)) / temperature
    return np.asarray(scaled - np.log(np.exp(scaled).sum(axis=-1, keepdims=True)))


def entropy(probabilities: ArrayLike) -> Matrix:
    """How undecided a distribution is: ``-Σ p log2 p``.

    Parameters
    ----------
    probabilities : array_like, shape (..., K)
        Not negative, each row adds up to 1.

    Returns
    -------
    ndarray of float64, shape (...)
        In bits: 0 for a sure answer, ``log2(K)`` for none at all.

    Raises
    ------
    ValueError
        If a row is not a distribution.
    """
    p = _distribution("probabilities", probabilities)
    return np.asarray(-(p * np.log2(np.where(p > 0, p, 1.0))).sum(axis=-1))


def kl_divergence(teacher: ArrayLike, student: ArrayLike) -> float:
    """How far the student's probabilities are from the teacher's: ``Σ p log(p / q)``.

    Parameters
    ----------
    teacher, student : array_like, shape (n, K)
        Probabilities p and q.

    Returns
    -------
    float
        In nats, averaged over samples; 0 if they are equal, infinite if the student rules out what the teacher does
        not. It is not symmetric.

    Raises
    ------
    ValueError
        If the shapes differ, there is no sample, or a row is not a distribution.
    """
    p, q = _pair(teacher, student)
    p, q = _distribution("teacher", p), _distribution("student", q)
    if np.any((q == 0) & (p > 0)):
        return float("inf")
    # Where p is 0 the term is 0, whatever q is.
    ratio = np.where(p > 0, p, 1.0) / np.where(p > 0, q, 1.0)
    return float((p * np.log(ratio)).sum(axis=1).mean())


def half_squared_error(teacher: ArrayLike, student: ArrayLike) -> float:
    """Half the sum of squared differences over everything: ``½ ΣΣ (teacher - student)²``.

    Many tutorials print this as the distillation loss; it grows with the batch. For the teacher
    ``[[.8, .2], [.6, .4]]`` and the student ``[[.6, .4], [.5, .5]]`` it is ½ (0.04 + 0.04 + 0.01 + 0.01) = 0.05.

    Parameters
    ----------
    teacher, student : array_like, shape (n, K)
        Both logits or both probabilities.

    Returns
    -------
    float
        In the unit of the input, squared; neither averaged over samples nor over classes.

    Raises
    ------
    ValueError
        If the shapes differ, or there is no sample.
    """
    t, s = _pair(teacher, student)
    return float(np.square(t - s).sum() / 2)


def kl_loss(teacher_logits: ArrayLike, student_logits: ArrayLike, temperature: float = 1.0) -> float:
    """Distance of the softened probabilities, times T²: ``T² · KL(p_T || q_T)``.

    Without the factor the gradient would fade as 1/T², and the balance with the loss on the true labels would shift
    with every change of temperature.

    Parameters
    ----------
    teacher_logits, student_logits : array_like, shape (n, K)
        Logits v and z.
    temperature : float, optional
        T > 0.

    Returns
    -------
    float
        In nats, averaged over samples.

    Raises
    ------
    ValueError
        If the shapes differ, there is no sample, a logit is not finite, or the temperature is not above 0.
    """
    v, z = _pair(teacher_logits, student_logits)
    log_p, log_q = log_softmax(v, temperature), log_softmax(z, temperature)
    return float(temperature**2 * (np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean())


def kl_gradient(teacher_logits: ArrayLike, student_logits: ArrayLike, temperature: float = 1.0) -> Matrix:
    """Gradient of `kl_loss`, and of `cross_entropy_loss`, by the student's logits: ``T · (q_T - p_T) / n``.

    Parameters
    ----------
    teacher_logits, student_logits : array_like, shape (n, K)
        Logits v and z.
    temperature : float, optional
        T > 0.

    Returns
    -------
    ndarray of float64, shape (n, K)
        Each row adds up to 0.

    Raises
    ------
    ValueError
        As `kl_loss` does.
    """
    v, z = _pair(teacher_logits, student_logits)
    return temperature * (softmax(z, temperature) - softmax(v, temperature)) / len(z)


def cross_entropy_loss(teacher_logits: ArrayLike, student_logits: ArrayLike, temperature: float = 1.0) -> float:
    """Surprise of the student at the teacher's softened answers, times T²: ``-T² · Σ p_T log q_T``.

    It is `kl_loss` plus T² times the teacher's own entropy, which no student can change; the gradient is the same.

    Parameters
    ----------
    teacher_logits, student_logits : array_like, shape (n, K)
        Logits v and z.
    temperature : float, optional
        T > 0.

    Returns
    -------
    float
        In nats, averaged over samples.

    Raises
    ------
    ValueError
        As `kl_loss` does.
    """
    v, z = _pair(teacher_logits, student_logits)
    return float(-(temperature**2) * (softmax(v, temperature) * log_softmax(z, temperature)).sum(axis=1).mean())


def logit_loss(teacher_logits: ArrayLike, student_logits: ArrayLike, temperature: float = 1.0) -> float:
    """Mean squared difference of the logits: ``Σ_k (z_k - v_k)² / K``.

    Parameters
    ----------
    teacher_logits, student_logits : array_like, shape (n, K)
        Logits v and z.
    temperature : float, optional
        Has no influence; accepted so that all losses are called alike.

    Returns
    -------
    float
        Averaged over samples and classes.

    Raises
    ------
    ValueError
        If the shapes differ, or there is no sample.

    Notes
    -----
    Ba and Caruana (2013), *Do deep nets really need to be deep?*, arXiv:1312.6184.
    """
    v, z = _pair(teacher_logits, student_logits)
    return float(np.square(z - v).mean())


def logit_gradient(teacher_logits: ArrayLike, student_logits: ArrayLike, temperature: float = 1.0) -> Matrix:
    """Gradient of `logit_loss` by the student's logits: ``2 (z - v) / (n K)``.

    Parameters
    ----------
    teacher_logits, student_logits : array_like, shape (n, K)
        Logits v and z.
    temperature : float, optional
        Has no influence.

    Returns
    -------
    ndarray of float64, shape (n, K)

    Raises
    ------
    ValueError
        As `logit_loss` does.
    """
    v, z = _pair(teacher_logits, student_logits)
    return np.asarray(2 * (z - v) / z.size)


def probability_loss(teacher_logits: ArrayLike, student_logits: ArrayLike, temperature: float = 1.0) -> float:
    """Mean squared difference of the softened probabilities: ``Σ_k (q_k - p_k)² / K``.

    Parameters
    ----------
    teacher_logits, student_logits : array_like, shape (n, K)
        Logits v and z.
    temperature : float, optional
        T > 0.

    Returns
    -------
    float
        Averaged over samples and classes; no factor of T.

    Raises
    ------
    ValueError
        As `kl_loss` does.
    """
    v, z = _pair(teacher_logits, student_logits)
    return float(np.square(softmax(z, temperature) - softmax(v, temperature)).mean())


def probability_gradient(teacher_logits: ArrayLike, student_logits: ArrayLike, temperature: float = 1.0) -> Matrix:
    """Gradient of `probability_loss` by the student's logits.

    With ``g = 2 (q - p) / (n K)``, the gradient by q, it is ``q · (g - Σ_j g_j q_j) / T``: the chain rule through
    softmax. It is small wherever the student is sure, right or wrong, which is why few train with this loss.

    Parameters
    ----------
    teacher_logits, student_logits : array_like, shape (n, K)
        Logits v and z.
    temperature : float, optional
        T > 0.

    Returns
    -------
    ndarray of float64, shape (n, K)
        Each row adds up to 0.

    Raises
    ------
    ValueError
        As `kl_loss` does.
    """
    v, z = _pair(teacher_logits, student_logits)
    p, q = softmax(v, temperature), softmax(z, temperature)
    g = 2 * (q - p) / z.size
    return np.asarray(q * (g - (g * q).sum(axis=1, keepdims=True)) / temperature)


def high_temperature_limit(teacher_logits: ArrayLike, student_logits: ArrayLike) -> float:
    """Where `kl_loss` goes as T grows: ``Σ_k (z_k - v_k - d)² / (2 K)``, with d the mean of z - v over the classes.

    So a very hot student matches logits, up to a shift that softmax does not see; half of `logit_loss` if the logits of
    both have the same mean. (Hinton et al., section 2.1, for the gradient.)

    Parameters
    ----------
    teacher_logits, student_logits : array_like, shape (n, K)
        Logits v and z.

    Returns
    -------
    float
        Averaged over samples.

    Raises
    ------
    ValueError
        If the shapes differ, or there is no sample.
    """
    v, z = _pair(teacher_logits, student_logits)
    difference = z - v
    return float(np.square(difference - difference.mean(axis=1, keepdims=True)).mean() / 2)


def smooth_labels(labels: ArrayLike, classes: int, smoothing: float = 0.0) -> Matrix:
    """Write labels as probabilities: ``1 - ε + ε/K`` for the true class and ``ε/K`` for each other.

    Softer than a hard label, as a teacher's answer is, but every wrong class is equally likely: no dark knowledge.

    Parameters
    ----------
    labels : array_like of int, shape (n,)
        Classes from 0 to K - 1.
    classes : int
        K.
    smoothing : float, optional
        ε in [0, 1]; 0 gives one-hot rows.

    Returns
    -------
    ndarray of float64, shape (n, K)
        Each row adds up to 1.

    Raises
    ------
    ValueError
        If a label is not a class, there is no label, or ε is outside [0, 1].

    Notes
    -----
    Szegedy et al. (2015), *Rethinking the Inception architecture*, arXiv:1512.00567.
    """
    if not 0 <= smoothing <= 1:
        raise ValueError(f"smoothing is {smoothing!r}; choose a number from 0 to 1 (0.1 is usual)")
    y = np.asarray(labels)
    if y.ndim != 1 or y.size == 0 or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"labels has shape {y.shape} and dtype {y.dtype}; give one whole number for each sample")
    if y.min() < 0 or y.max() >= classes:
        raise ValueError(
            f"labels holds {int(y.min())} to {int(y.max())}; with {classes} classes, use 0 to {classes - 1}"
        )
    return np.asarray(np.eye(classes)[y] * (1 - smoothing) + smoothing / classes)


def label_loss(labels: ArrayLike, student_logits: ArrayLike, smoothing: float = 0.0) -> float:
    """Cross-entropy with the true labels, at temperature 1: what a student without a teacher is trained on.

    Parameters
    ----------
    labels : array_like of int, shape (n,)
        True classes.
    student_logits : array_like, shape (n, K)
        Logits z.
    smoothing : float, optional
        Label smoothing ε in [0, 1].

    Returns
    -------
    float
        In nats, averaged over samples.

    Raises
    ------
    ValueError
        If a label is not a class, the numbers of samples differ, or a logit is not finite.
    """
    z = np.asarray(student_logits, dtype=np.float64)
    target, z = _pair(smooth_labels(labels, z.shape[-1], smoothing), z)
    return float(-(target * log_softmax(z)).sum(axis=1).mean())


def label_gradient(labels: ArrayLike, student_logits: ArrayLike, smoothing: float = 0.0) -> Matrix:
    """Gradient of `label_loss` by the student's logits: ``(q - target) / n``.

    Parameters
    ----------
    labels : array_like of int, shape (n,)
        True classes.
    student_logits : array_like, shape (n, K)
        Logits z.
    smoothing : float, optional
        Label smoothing ε in [0, 1].

    Returns
    -------
    ndarray of float64, shape (n, K)

    Raises
    ------
    ValueError
        As `label_loss` does.
    """
    z = np.asarray(student_logits, dtype=np.float64)
    target, z = _pair(smooth_labels(labels, z.shape[-1], smoothing), z)
    return np.asarray((softmax(z) - target) / len(z))


@dataclass(frozen=True)
class Loss:
    """A way to compare a student with its teacher.

    Parameters
    ----------
    value : callable (teacher_logits, student_logits, temperature) -> float
        The loss.
    gradient : callable (teacher_logits, student_logits, temperature) -> ndarray, shape (n, K)
        Its gradient by the student's logits.
    """

    value: Callable[[ArrayLike, ArrayLike, float], float]
    gradient: Callable[[ArrayLike, ArrayLike, float], Matrix]


LOSSES = {
    "kl": Loss(kl_loss, kl_gradient),
    "cross-entropy": Loss(cross_entropy_loss, kl_gradient),
    "logits": Loss(logit_loss, logit_gradient),
    "probabilities": Loss(probability_loss, probability_gradient),
}


def distillation_loss(
    teacher_logits: ArrayLike,
    student_logits: ArrayLike,
    labels: ArrayLike,
    temperature: float = 4.0,
    alpha: float = 0.9,
    loss: str = "kl",
) -> float:
    """Mix what the teacher says with what the labels say: ``α · teacher's part + (1 - α) · labels' part``.

    Parameters
    ----------
    teacher_logits, student_logits : array_like, shape (n, K)
        Logits v and z.
    labels : array_like of int, shape (n,)
        True classes.
    temperature : float, optional
        T > 0, for the teacher's part; the labels' part is always at 1.
    alpha : float, optional
        In [0, 1]: 0 is training without a teacher, 1 training without labels.
    loss : {"kl", "cross-entropy", "logits", "probabilities"}, optional
        How the teacher's part is measured (`LOSSES`).

    Returns
    -------
    float
        Averaged over samples.

    Raises
    ------
    ValueError
        If ``alpha`` is outside [0, 1], ``loss`` is not one of the four, or the losses themselves refuse.
    """
    chosen = _chosen(loss, alpha)
    by_teacher = chosen.value(teacher_logits, student_logits, temperature)
    return alpha * by_teacher + (1 - alpha) * label_loss(labels, student_logits)


def distillation_gradient(
    teacher_logits: ArrayLike,
    student_logits: ArrayLike,
    labels: ArrayLike,
    temperature: float = 4.0,
    alpha: float = 0.9,
    loss: str = "kl",
) -> Matrix:
    """Gradient of `distillation_loss` by the student's logits.

    Parameters
    ----------
    teacher_logits, student_logits, labels, temperature, alpha, loss
        As for `distillation_loss`.

    Returns
    -------
    ndarray of float64, shape (n, K)

    Raises
    ------
    ValueError
        As `distillation_loss` does.
    """
    chosen = _chosen(loss, alpha)
    by_teacher = chosen.gradient(teacher_logits, student_logits, temperature)
    return np.asarray(alpha * by_teacher + (1 - alpha) * label_gradient(labels, student_logits))


def missing_classes(labels: ArrayLike, classes: int) -> tuple[int, ...]:
    """Say which classes a transfer set does not hold at all.

    Parameters
    ----------
    labels : array_like of int, shape (n,)
        True classes of the transfer set.
    classes : int
        K.

    Returns
    -------
    tuple of int
        Ascending; empty if every class from 0 to K - 1 is there.
    """
    return tuple(int(c) for c in np.setdiff1d(np.arange(classes), np.asarray(labels)))


def _chosen(loss: str, alpha: float) -> Loss:
    """Look a loss up by name, once its weight makes sense."""
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha!r}; choose a number from 0 (labels only) to 1 (teacher only)")
    if loss not in LOSSES:
        raise ValueError(f"loss is {loss!r}; choose one of {', '.join(map(repr, LOSSES))}")
    return LOSSES[loss]


def _pair(teacher: ArrayLike, student: ArrayLike) -> tuple[Matrix, Matrix]:
    """Return both as float64 matrices of the same shape, or say what differs."""
    t, s = np.asarray(teacher, dtype=np.float64), np.asarray(student, dtype=np.float64)
    if t.ndim != 2 or s.ndim != 2 or t.shape != s.shape:
        raise ValueError(
            f"teacher has shape {t.shape} and student {s.shape}; give both as (samples, classes), "
            "with the same samples and classes"
        )
    if t.size == 0:
        raise ValueError(
            f"teacher and student have shape {t.shape}: there is nothing to learn from; give at least one sample"
        )
    return t, s


def _distribution(parameter: str, probabilities: ArrayLike) -> NDArray[Any]:
    """Return probabilities as float64, or say why they are none."""
    p = np.asarray(probabilities, dtype=np.float64)
    if not (np.all(p >= 0) and np.allclose(p.sum(axis=-1), 1, atol=1e-4)):
        raise ValueError(
            f"{parameter} holds rows that are not probabilities; they must be >= 0 and add up to 1 (softmax)"
        )
    return p
