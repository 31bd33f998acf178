"""DeLong's test against its definition, and against simulations whose answer is known."""

import numpy as np
import pytest

from cxw_monai.metrics.delong import auroc_covariance, compare_aurocs


def by_definition(scores, positive):
    """DeLong 1988, equations 3 to 6: every pair of a positive and a negative."""
    upper, lower = scores[:, positive], scores[:, ~positive]
    kernel = (upper[:, :, None] > lower[:, None, :]) + 0.5 * (upper[:, :, None] == lower[:, None, :])  # [M, P, Q]
    parts = kernel.mean(axis=2), kernel.mean(axis=1)
    return kernel.mean(axis=(1, 2)), sum(np.cov(part, ddof=1) / part.shape[1] for part in parts)


def test_it_is_what_its_definition_says_with_ties():
    generator = np.random.default_rng(0)
    positive = generator.random(90) < 0.4
    scores = np.round(generator.random((3, 90)) + 0.3 * positive, 1)
    auroc, covariance = auroc_covariance(scores, positive)
    expected = by_definition(scores, positive)
    np.testing.assert_allclose(auroc, expected[0])
    np.testing.assert_allclose(covariance, expected[1])


def test_five_films_by_hand():
    """Positives 3, 1 and negatives 2, 0, 0: placements 1, 2/3 and 1/2, 1, 1; variances 1/18 / 2 and 1/12 / 3."""
    auroc, covariance = auroc_covariance(np.array([3.0, 1, 2, 0, 0]), np.array([1, 1, 0, 0, 0], bool))
    assert auroc == pytest.approx([5 / 6]) and covariance == pytest.approx(np.array([[1 / 36 + 1 / 36]]))


def simulated(seed, films=150, shared=0.6, first=1.0, second=1.0):
    """Two binormal classifiers that share a part of their noise."""
    generator = np.random.default_rng(seed)
    positive = np.arange(films) % 3 == 0
    common, *own = generator.normal(size=(3, films))
    return [shared * common + np.sqrt(1 - shared**2) * noise + gain * positive
            for noise, gain in zip(own, (first, second), strict=True)], positive  # fmt: skip


def test_one_in_twenty_is_significant_where_there_is_no_difference():
    found = np.array([compare_aurocs(*scores, positive).p for scores, positive in map(simulated, range(600))])
    assert 0.03 < (found < 0.05).mean() < 0.08 and 0.44 < (found < 0.5).mean() < 0.56


def test_the_interval_holds_the_true_difference():
    """Phi(1.5 / sqrt 2) - Phi(1 / sqrt 2) = .8556 - .7602."""
    found = [compare_aurocs(*scores, positive)
             for scores, positive in (simulated(seed, first=1.5) for seed in range(400))]  # fmt: skip
    held = np.mean([result.low <= 0.8556 - 0.7602 <= result.high for result in found])
    assert 0.92 < held < 0.975
    spread = np.std([result.difference for result in found])
    assert np.mean([result.high - result.low for result in found]) / (2 * 1.96) == pytest.approx(spread, rel=0.1)


def test_a_patients_films_are_no_new_evidence():
    (first, second), positive = simulated(0, second=0.5)
    once = compare_aurocs(first, second, positive)
    copies = [np.repeat(values, 4) for values in (first, second, positive)]
    same = compare_aurocs(*copies, patients=[str(film // 4) for film in range(600)])
    assert (same.low, same.high, same.p) == pytest.approx((once.low, once.high, once.p))
    assert compare_aurocs(*copies).p < once.p


def test_one_in_twenty_is_significant_with_several_films_a_patient():
    """A patient's three films share noise, and one in ten has another label; it takes far too many without patients."""

    def once(seed):
        generator = np.random.default_rng(seed)
        patients = np.repeat(np.arange(80), 3)
        positive = (generator.random(80) < 0.4)[patients] ^ (generator.random(240) < 0.1)
        scores = [generator.normal(size=80)[patients] + 0.3 * generator.normal(size=240) + positive for _ in range(2)]
        return compare_aurocs(*scores, positive, patients=patients).p, compare_aurocs(*scores, positive).p

    by_patient, by_film = np.array([once(seed) for seed in range(400)]).T
    assert 0.025 < (by_patient < 0.05).mean() < 0.085 and (by_film < 0.05).mean() > 0.15


def test_the_same_ranks_do_not_differ():
    (first, _), positive = simulated(1)
    found = compare_aurocs(first, np.exp(first), positive)
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)
    always = compare_aurocs(positive * 1.0, positive * -1.0, positive)
    assert (always.first, always.second, always.p) == (1, 0, 0)


def test_what_is_refused():
    with pytest.raises(ValueError, match="differ"):
        compare_aurocs(np.zeros(3), np.zeros(3), np.zeros(4, bool))
    with pytest.raises(ValueError, match="got 1 and 3"):
        compare_aurocs(np.arange(4.0), np.arange(4.0), np.arange(4) == 0)
