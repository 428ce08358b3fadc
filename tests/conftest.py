"""Strict JAX, and every public signature's shapes checked, for all tests."""

import jax
import pytest
from jaxtyping import install_import_hook

install_import_hook("jaxcam", "beartype.beartype")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture
def x64():
    """Runs a test in float64."""
    with jax.enable_x64(True):
        yield
