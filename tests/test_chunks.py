"""Loops in chunks: over what is live alone, and the same numbers whatever the chunk."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcam._src.chunks import mapped_where

XS = jnp.linspace(-1.0, 2.0, 14).reshape(7, 2)
LIVE = jnp.array([True, False, True, True, False, False, True])


def _f(scale, x):
    return jnp.sin(scale * x).sum()


def _by_hand(scale, xs, live):
    return jnp.where(live, jnp.sin(scale * xs).sum(axis=1), -3.0)


def _run(scale, xs, live, chunk_size=2):
    return mapped_where(functools.partial(_f, scale), xs, live, -3.0, chunk_size)


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("live", [LIVE, ~LIVE, LIVE & False, LIVE | True])
def test_what_is_live_is_mapped_and_the_rest_is_not(chunk_size, live):
    found = jax.jit(functools.partial(_run, chunk_size=chunk_size))(2.0, XS, live)
    np.testing.assert_allclose(found, _by_hand(2.0, XS, live), rtol=1e-6)


@pytest.mark.parametrize(("live", "chunks"), [(LIVE, 2), (LIVE & False, 0), (LIVE | True, 4)])
def test_only_live_chunks_run(live, chunks):
    calls = []

    def counted(x):
        jax.debug.callback(lambda: calls.append(1))
        return x.sum()

    def chunk_of_two(live):
        return mapped_where(counted, XS, live, 0.0, 2)

    jax.block_until_ready(jax.jit(chunk_of_two)(live))
    jax.effects_barrier()
    assert len(calls) == chunks  # a callback without arguments runs once for all of a chunk


@pytest.mark.parametrize(("chunk_size", "runs"), [(7, 7), (6, 8), (4, 8), (3, 9), (50, 7)])
def test_chunks_are_of_equal_size(chunk_size, runs):
    calls = []

    def counted(x):
        jax.debug.callback(lambda _: calls.append(1), x)
        return x.sum()

    jax.block_until_ready(mapped_where(counted, XS, LIVE | True, 0.0, chunk_size))
    jax.effects_barrier()
    assert len(calls) == runs  # 7 entries, and those that the last chunk shares with another


def _plain(scale, xs):
    return jnp.sin(scale * xs).sum(axis=1)


def _known(scale, xs):
    known = _plain(2.0, XS)  # numbers, of which no derivative is taken
    return mapped_where(functools.partial(_f, scale), xs, LIVE, known, 2)


@pytest.mark.parametrize("way", [jax.jit, lambda f: f])
def test_derivatives_are_those_of_the_plain_map(way):
    """Of what is mapped, live or not, and of what the function closes over, both modes, twice."""

    def total(run):
        return lambda scale, xs: (run(scale, xs) ** 2).sum()

    for wanted, found in zip(
        jax.grad(total(_plain), argnums=(0, 1))(2.0, XS),
        jax.grad(way(total(_known)), argnums=(0, 1))(2.0, XS),
        strict=True,
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
    twice = [
        jax.jvp(jax.grad(way(total(run))), (2.0, XS), (1.0, 0 * XS)) for run in (_plain, _known)
    ]
    np.testing.assert_allclose(twice[1], twice[0], rtol=1e-5)


def test_each_of_a_batch_has_its_own_live_ones():
    lives = jnp.stack([LIVE, ~LIVE, LIVE & False])
    found = jax.jit(jax.vmap(_run, in_axes=(None, None, 0)))(2.0, XS, lives)
    wanted = jnp.stack([_by_hand(2.0, XS, live) for live in lives])
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
