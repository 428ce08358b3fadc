"""Heads with local fields: activations that no field element sees two of share a direction."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxcam._src.arithmetic import accumulated
from jaxcam._src.base import Derivatives
from jaxcam._src.chunks import mapped
from jaxcam._src.derivatives.directions import along_curve, directional
from jaxcam._src.derivatives.structure import Gated, Local, LocalPooled
from jaxcam._src.derivatives.structure.pools import entered, slopes_of, slopes_of_groups, weighed
from jaxcam._src.derivatives.structure.program import Program, read
from jaxcam._src.derivatives.sweeps import sweeping


def local(
    f: Callable[[Array], Array], program: Program, case: Local, x: Array, chunk_size: int
) -> Derivatives:
    """Derivatives of the fields, weighed by the gradient of what follows, summed by owner."""
    fields = [*case.fields]
    slopes = slopes_of(program, fields, program.result, np.zeros(1, int))
    jets_along = _jets(program, case, x)

    def along(index):
        jets, owners = jets_along(index)
        return [
            sum(
                einsum("rc,rp,ck->pk", case.fields[v].matrix(weighed(d, slope)), *owner)
                for v, slope, d, owner in zip(fields, slopes, jet, owners, strict=True)
            )
            for jet in jets[1:]
        ]

    found = mapped_along(along, program, case, chunk_size)
    return gathered(f, x, case, found)


def local_pooled(
    f: Callable[[Array], Array], program: Program, case: LocalPooled, x: Array, chunk_size: int
) -> Derivatives:
    """Of each activation the curve through the pooled numbers, and the result along it."""
    jets_along, pooled = _jets(program, case, x), pooling(program, case)
    along_curves = result_along(program, case)

    def along(index):
        jets, owners = jets_along(index)
        rows = [rows for rows, _ in owners]
        second, third = along_curves([pooled(jet, rows) for jet in jets])
        return [second[:, None], third[:, None]]

    found = mapped_along(along, program, case, chunk_size)
    return gathered(f, x, case, found)


def gated(
    f: Callable[[Array], Array], program: Program, case: Gated, x: Array, chunk_size: int
) -> Derivatives:
    """The same where gates move too: what they do to all, and what else the activation does.

    An activation of a channel moves the gates alike wherever it is. So of each channel the fields
    are followed once while the gates move alone, and once for each colour while both move.
    """
    rest, positions = case.rest, case.rest.positions
    fields_along = _fields_along(program, case, x)
    pooled, along_curves = pooling(program, rest), result_along(program, rest)
    rows_of, everywhere = rows_seeing(rest)

    def along(channel):
        by_gates = fields_along(channel, jnp.zeros_like(positions.colour, bool))
        of_all = [pooled(jet, everywhere) for jet in by_gates]

        def of_colour(colour):
            rows = rows_of(colour)
            by_both = fields_along(channel, positions.colour == colour)
            more = jax.tree.map(jnp.subtract, by_both, by_gates)
            return along_curves([a + pooled(d, rows) for a, d in zip(of_all, more, strict=True)])

        return jax.lax.map(of_colour, jnp.arange(positions.count))

    found = mapped_along(along, program, rest, chunk_size, jnp.arange(rest.channels.count))
    by_direction = (d.swapaxes(0, 1).reshape(-1, d.shape[-1], 1) for d in found)
    return gathered(f, x, rest, [*by_direction])


def _fields_along(program: Program, case: Gated, x: Array) -> Callable[[Array, Any], Derivatives]:
    """Makes `(channel, positions that move [P]) -> derivatives of the fields`.

    The gates move as one activation of the channel moves them, whatever the positions.
    """
    to_gates = program.between([program.point], case.gates)
    to_fields = program.between([program.point, *case.gates], [*case.rest.fields])
    at, places = [x, *(program.values[v] for v in case.gates)], x.size // x.shape[-1]

    def fields_along(channel, moving):
        channelwise = jnp.zeros_like(x).at[..., channel].set(1)
        _, gates = jax.jvp(to_gates, (x,), (channelwise / places,))
        direction = channelwise * jnp.reshape(moving, (*x.shape[:-1], 1)).astype(x.dtype)
        return directional(lambda values: to_fields(*values), at, [direction, *gates])

    return fields_along


def rows_seeing(case: LocalPooled) -> tuple[Callable[[Array], list], list[Array]]:
    """Makes `colour -> which rows of each field see the position of each slot, [rows, slots]`.

    Returns:
      The function, and the same for one slot that all rows see.
    """
    seen = [jnp.pad(grid.positions, ((0, 0), (0, 1))) for grid in case.fields.values()]
    members = jnp.asarray(case.positions.members)
    everywhere = [jnp.ones((len(s), 1), bool) for s in seen]
    return lambda colour: [s[:, members[colour]] for s in seen], everywhere


def pooling(program: Program, case: LocalPooled) -> Callable[[Any, Any], Array]:
    """Makes `(fields, rows to take for each slot) -> pooled numbers [slots, *waist]`."""
    waist, grids = program.values[case.waist], case.fields.values()
    numbers = [*zip(*case.numbers.values(), strict=True)]  # of each group, those of each field
    slopes = slopes_of_groups(program, case.numbers, case.waist)

    def pooled(values, rows):
        terms = [
            entered(einsum("rc,rp->pc", grid.matrix(weighed(d, slope)), seen), own, waist.size)
            for group in zip(slopes, numbers, strict=True)
            for slope, own, grid, d, seen in zip(*group, grids, values, rows, strict=True)
        ]
        dtype = np.result_type(*(term.dtype for term in terms))  # fields may differ
        total = sum(term.astype(dtype) for term in terms)
        return jnp.asarray(total, waist.dtype).reshape(-1, *waist.shape)

    return pooled


def result_along(program: Program, case: LocalPooled) -> Callable[[list], list]:
    """Makes `curves of the waist, derivatives [slots, *waist] -> [second, third] of the result`."""
    after, waist = program.after(case.waist), program.values[case.waist]
    if program.is_linear_between(case.waist, program.result):
        slope = jax.grad(after)(waist)
        return lambda curves: [einsum("s...,...->s", curve, slope) for curve in curves[1:]]
    along = sweeping(read(after, waist)) or functools.partial(along_curve, after, waist)
    return lambda curves: [*jax.vmap(along)(*curves)][1:]


def _jets(program: Program, case: Local | LocalPooled, x: Array) -> Callable[[Array], tuple]:
    """Makes `index -> (derivatives of the fields along a direction, their owners)`.

    A direction moves the activations of one colour of positions and one of channels. The owner
    of a row is the slot of the one position of that colour which it sees; of a column, likewise.
    """
    to_fields = program.between([program.point], [*case.fields])
    seen = [
        tuple(jnp.pad(s, ((0, 0), (0, 1))) for s in (grid.positions, grid.channels))
        for grid in case.fields.values()
    ]

    def jets_along(index):
        colours = jnp.divmod(index, case.channels.count)
        members = [
            jnp.asarray(side.members)[colour]
            for side, colour in zip((case.positions, case.channels), colours, strict=True)
        ]
        moved = [
            (side.colour == colour).astype(x.dtype)
            for side, colour in zip((case.positions, case.channels), colours, strict=True)
        ]
        direction = jnp.outer(*moved).reshape(x.shape)
        owners = [[s[:, slots] for s, slots in zip(sides, members, strict=True)] for sides in seen]
        return directional(to_fields, x, direction), owners

    return jets_along


def mapped_along(
    along: Callable[[Array], list],
    program: Program,
    case: Local | LocalPooled,
    chunk_size: int,
    directions: Array | None = None,
    copies: int = 1,
) -> list[Array]:
    """Goes along every direction, so many at once as hold `chunk_size` times the activations.

    `copies` is how many sets of the fields' derivatives one direction holds.
    """
    held = 3 * copies * sum(v.aval.size for v in case.fields)
    at_once = max(1, chunk_size * program.point.aval.size // held)
    if directions is None:
        directions = jnp.arange(case.positions.count * case.channels.count)
    return mapped(along, directions, at_once)


def gathered(
    f: Callable[[Array], Array], x: Array, case: Local | LocalPooled, found: list[Array]
) -> Derivatives:
    """Puts what was found `[directions, position slots, channel slots]` where it belongs."""
    positions, channels = case.positions, case.channels
    direction = positions.colour[:, None] * channels.count + channels.colour
    unseen = (positions.colour[:, None] < 0) | (channels.colour < 0)
    slots = positions.slot[:, None], channels.slot[None, :]
    placed = [jnp.where(unseen, 0, d[direction, *slots]).reshape(x.shape) for d in found]
    return Derivatives(accumulated(jax.grad(f)(x)), *placed)


def einsum(formula: str, values: Array, *seen: Array) -> Array:
    """Sums what is seen, in float32 at least, at full precision on every device."""
    values = accumulated(values)
    others = (s.astype(values.dtype) for s in seen)
    return jnp.einsum(formula, values, *others, precision="highest")
