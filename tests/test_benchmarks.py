"""The tops that the benchmarks time show, at full size, the structure that they are timed for."""

import sys
from pathlib import Path

import jax
import pytest

import jaxcam

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import tops

EXPECTED = {
    (tops.resnet50, "logit"): "piecewise linear: one gradient",
    (tops.resnet50, "log_probability"): (
        "pooled first to 2,048 of 100,352 numbers; "
        "piecewise linear first: 1,000 directions instead of 2,048"
    ),
    (tops.efficientnet_b0, "logit"): "local, 1 colour: 320 directions instead of 15,680",
    (tops.efficientnet_b0, "log_probability"): (
        "local, then pooled, 1 colour: 320 directions instead of 15,680"
    ),
    (tops.convnext_tiny, "logit"): "pooled first: 768 directions instead of 37,632",
    (tops.convnext_tiny, "log_probability"): "pooled first: 768 directions instead of 37,632",
    (tops.silu_block, "logit"): "local, 25 colours: 1,600 directions instead of 12,544",
    (tops.silu_block, "log_probability"): (
        "local, then pooled, 25 colours: 1,600 directions instead of 12,544"
    ),
}


@pytest.mark.parametrize(
    ("make", "score"), EXPECTED, ids=[f"{make.__name__} {score}" for make, score in EXPECTED]
)
def test_structure_of_a_known_top(make, score):
    top = make()
    x = jax.ShapeDtypeStruct(top.activations.shape, top.activations.dtype)

    def f(a):
        # As a user's network would run; the tests are stricter about ranks and types.
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            return getattr(jaxcam, score)(top.in_jax(a), 7)

    assert str(jaxcam.structure(f, x)) == EXPECTED[make, score]
