"""Calibration fitted on cases whose truth is known, and measured on others."""

import numpy as np
import pytest

from nucleiseg.evaluation import fit_calibration, measure_reliability
from nucleiseg.quality import Calibration


def draw_cases(n, seed, *, power=2.0):
    """Scores, and whether each is right: with the probability score ** power."""
    rng = np.random.default_rng(seed)
    scores = rng.random(n)
    return scores, rng.random(n) < scores**power


class TestFit:
    @pytest.mark.parametrize("power", [0.3, 1.0, 3.0])
    def test_finds_the_law_behind_the_cases(self, power):
        calibration = fit_calibration(*draw_cases(20_000, 0, power=power))
        scores = np.linspace(0.05, 0.95, 19)
        np.testing.assert_allclose(calibration.apply(scores), scores**power, atol=0.06)
        assert len(calibration.scores) <= 20

    def test_holds_on_other_cases(self):
        calibration = fit_calibration(*draw_cases(3000, 1))
        scores, is_right = draw_cases(3000, 2)
        before = measure_reliability(scores, is_right)
        after = measure_reliability(calibration.apply(scores), is_right)
        assert before.expected_calibration_error > 0.15
        assert after.expected_calibration_error < 0.04
        assert after.brier < before.brier

    def test_never_falls_even_where_the_cases_do(self):
        scores, is_right = draw_cases(2000, 3)
        calibration = fit_calibration(scores, ~is_right)
        assert (np.diff(calibration.shares) >= 0).all()
        share = (~is_right).mean()
        np.testing.assert_allclose(calibration.shares, share, atol=0.02)

    @pytest.mark.parametrize("n", [1, 24, 60])
    def test_few_cases_prove_little(self, n):
        calibration = fit_calibration(np.linspace(0.5, 1, n), np.ones(n, bool))
        assert len(calibration.scores) == max(1, n // 25)
        for share in calibration.shares:
            assert 1 - 1 / (n / len(calibration.shares) + 1) < share < 1

    def test_equal_scores(self):
        is_right = np.arange(300) % 3 > 0
        calibration = fit_calibration(np.full(300, 0.75), is_right)
        assert calibration.scores == (0.75,)
        assert calibration.shares[0] == pytest.approx(2 / 3, abs=0.01)

    def test_diameters_without_their_extremes(self):
        scores, is_right = draw_cases(100, 0)
        diameters = np.arange(1.0, 102.0)
        calibration = fit_calibration(scores, is_right, diameters_px=diameters)
        assert calibration.diameters_px == (2, 100)
        assert fit_calibration(scores, is_right).diameters_px is None

    def test_the_same_through_json(self):
        calibration = fit_calibration(*draw_cases(1000, 0))
        assert Calibration.from_dict(calibration.as_dict()) == calibration

    def test_nothing_is_refused(self):
        with pytest.raises(ValueError, match="no nuclei were found"):
            fit_calibration(np.zeros(0), np.zeros(0, bool))


class TestReliability:
    def test_by_hand(self):
        confidence = np.repeat([0.2, 0.9], [5, 5])
        is_right = np.array([1, 0, 0, 0, 0, 1, 1, 1, 1, 0], bool)
        found = measure_reliability(confidence, is_right)
        assert sum(one.n_nuclei for one in found.bins) == 10
        assert found.brier == pytest.approx(
            (4 * 0.2**2 + 0.8**2 + 4 * 0.1**2 + 0.9**2) / 10
        )

    def test_bins_are_of_like_confidence(self):
        order = np.random.default_rng(0).permutation(200)
        confidence = np.linspace(0, 1, 200)
        is_right = confidence > 0.5
        found = measure_reliability(confidence[order], is_right[order])
        assert [one.n_nuclei for one in found.bins] == [20] * 10
        assert [one.share for one in found.bins] == [0] * 5 + [1] * 5
        for number, one in enumerate(found.bins):
            assert one.confidence == pytest.approx(0.05 + number / 10, abs=0.01)
        assert found.expected_calibration_error == pytest.approx(0.25, abs=0.01)

    def test_a_right_confidence_has_no_error(self):
        scores, is_right = draw_cases(50_000, 0, power=1.0)
        found = measure_reliability(scores, is_right)
        assert found.expected_calibration_error < 0.01
        off = measure_reliability(scores * 0.8, is_right)
        assert off.expected_calibration_error == pytest.approx(0.1, abs=0.01)

    def test_nothing_is_refused(self):
        with pytest.raises(ValueError, match="no nuclei were found"):
            measure_reliability(np.zeros(0), np.zeros(0, bool))
