"""What numbers of some images say of all, against theory and arithmetic by hand."""

import numpy as np
import pytest

from jaxcam import statistics


def test_an_interval_is_that_of_the_normal_distribution(rng):
    numbers = rng.normal(3, 2, (400, 2))
    found = statistics.interval(numbers)
    half = 1.96 * numbers.std(0) / 20
    np.testing.assert_allclose(found.mean, numbers.mean(0))
    np.testing.assert_allclose(
        [found.low, found.high], [found.mean - half, found.mean + half], atol=0.03
    )


def test_intervals_hold_the_mean_as_often_as_they_say():
    held = 0
    for seed in range(200):
        numbers = np.random.default_rng(seed).exponential(1, 60)
        found = statistics.interval(numbers, draws=300, seed=seed)
        held += found.low <= 1 <= found.high
    assert 0.88 <= held / 200 <= 0.98


def test_equal_images_have_no_interval():
    found = statistics.interval(np.full((5, 3), 0.3))
    np.testing.assert_allclose([found.low, found.high], 0.3)


def test_a_difference_is_told_where_both_find_the_same_images_hard(rng):
    hardness = rng.normal(0, 1, (50, 1))
    numbers = hardness + np.array([0.1, 0.0]) + rng.normal(0, 0.02, (50, 2))
    alone = statistics.interval(numbers)
    assert alone.low[0] < alone.high[1]  # which overlap
    apart = statistics.differences(numbers)
    assert apart.low[0, 1] > 0 > apart.high[1, 0]
    np.testing.assert_allclose(apart.mean, -apart.mean.T)
    np.testing.assert_array_equal(apart.low.diagonal(), 0)


def test_what_only_rounding_tells_apart_is_equal(rng):
    numbers = np.repeat(rng.uniform(0, 1, (50, 1)), 10, axis=1)
    numbers[:, 1] += 2e-8  # less than float32 can say of numbers near 1
    found = statistics.ranks(statistics.differences(numbers), higher_is_better=True)
    np.testing.assert_array_equal(found, 1)
    np.testing.assert_array_equal(statistics.win_rates(numbers, higher_is_better=True), 0.5)
    constant = np.full((100, 10), 0.07760529281550688)  # of which each column rounds otherwise
    found = statistics.ranks(statistics.differences(constant), higher_is_better=True)
    np.testing.assert_array_equal(found, 1)


def test_a_nan_is_no_loss():
    found = statistics.win_rates(np.array([[1.0, np.nan], [2.0, 3.0]]), higher_is_better=True)
    np.testing.assert_array_equal(np.isnan(found), [[False, True], [True, True]])


@pytest.mark.parametrize(
    ("function", "numbers", "knobs", "message"),
    [
        (statistics.interval, np.ones((3, 2)), {"draws": 0}, "draws is 0"),
        (statistics.differences, np.ones(3), {}, r"shape \[3\]; wanted \[images, methods\]"),
        (statistics.win_rates, np.ones(3), {"higher_is_better": True}, r"shape \[3\]"),
    ],
)
def test_what_is_no_table_is_refused(function, numbers, knobs, message):
    with pytest.raises(ValueError, match=message):
        function(numbers, **knobs)


@pytest.mark.parametrize(("higher_is_better", "wanted"), [(True, [1, 2]), (False, [2, 1])])
def test_ranks_follow_the_direction(higher_is_better, wanted, rng):
    numbers = np.stack([rng.normal(1, 0.1, 30), rng.normal(0, 0.1, 30)], 1)
    found = statistics.ranks(statistics.differences(numbers), higher_is_better=higher_is_better)
    np.testing.assert_array_equal(found, wanted)


def test_what_is_noise_shares_a_rank(rng):
    numbers = rng.normal(0, 1, (30, 3))
    numbers[:, 2] -= 5
    apart = statistics.differences(numbers)
    np.testing.assert_array_equal(statistics.ranks(apart, higher_is_better=True), [1, 1, 3])


def test_win_rates_split_ties():
    numbers = np.array([[1.0, 0.0, 1.0], [1.0, 1.0, 2.0]])
    found = statistics.win_rates(numbers, higher_is_better=True)
    np.testing.assert_allclose(found, [[0.5, 0.75, 0.25], [0.25, 0.5, 0], [0.75, 1, 0.5]])
    turned = statistics.win_rates(numbers, higher_is_better=False)
    np.testing.assert_allclose(turned, found.T)


def test_resamples_are_those_of_the_seed_and_the_same_for_all_columns(rng):
    numbers = rng.normal(size=(20, 3))
    one, both = (statistics.resampled(n, draws=100) for n in (numbers[:, 1], numbers))
    np.testing.assert_allclose(both[:, 1], one)
    assert abs(statistics.resampled(numbers, draws=100, seed=1) - both).max() > 0
