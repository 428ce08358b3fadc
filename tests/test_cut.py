"""Cutting plain functions: what leads to the layer, what follows, and what is refused."""

import functools
import itertools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cut_law import TARGET, check_gradient, check_law
from flax import linen
from jax.extend import core as jex
from jax.sharding import PartitionSpec

import jaxcam
from jaxcam._src.cut.programs import programs_in

IMAGE = jax.random.normal(jax.random.key(0), (4, 3, 2))
MESH = jax.make_mesh((1,), ("devices",), (jax.sharding.AxisType.Auto,))


def parameters() -> dict[str, jax.Array]:
    shapes = {"first": (2, 4), "step": (4, 4), "second": (4, 4), "out": (4, 3)}
    keys = jax.random.split(jax.random.key(1), len(shapes))
    return {
        name: jax.random.normal(key, shape)
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


VARIABLES = parameters()


# Models take the tag as `at`, so that the same code can also record or disturb its layers.


def net(at, variables, image, wrap=lambda fn: fn):
    """Two layers in a row."""

    def layer(x, kernel, name):
        return at(jnp.tanh(x @ kernel), name)

    x = wrap(functools.partial(layer, name="first"))(image, variables["first"])
    x = wrap(functools.partial(layer, name="second"))(x, variables["second"])
    return jnp.sin(x).mean(axis=(0, 1)) @ variables["out"]


def loop(at, variables, image, reverse=False):
    """A scan of four steps, each with its own bias, and with outputs that are used."""

    def step(x, bias):
        x = at(jnp.tanh(x @ variables["step"] + bias), "step")
        return x, x.sum(axis=(0, 1)) * bias[0, 0]

    biases = jnp.linspace(-1.0, 1.0, 4)[:, None, None, None] * jnp.ones((4, 1, 1, 4))
    biases = jnp.broadcast_to(biases, (4, 4, 3, 4))
    x, sums = jax.lax.scan(step, image @ variables["first"], biases, reverse=reverse)
    return (x.mean(axis=(0, 1)) + jnp.arange(1.0, 5.0) @ sums) @ variables["out"]


def nested_loop(at, variables, image):
    """Two steps of three: the layer runs six times, and a jit is around the inner loop."""

    @jax.jit
    def inner(x, scale):
        x = at(jnp.sin(x @ variables["step"]) * scale, "inner")
        return x, x[0, 0]

    def outer(x, scales):
        x, corners = jax.lax.scan(inner, x, scales)
        return x, (corners, x.mean())

    scales = jnp.linspace(0.5, 1.5, 6).reshape(2, 3)
    x, (corners, means) = jax.lax.scan(outer, image @ variables["first"], scales)
    return (x.mean(axis=(0, 1)) * means[0] + corners.sum(axis=(0, 1))) @ variables["out"]


def thrice(at, variables, image):
    """One layer, run three times without a loop."""
    x = image @ variables["first"]
    for _ in range(3):
        x = at(jnp.tanh(x @ variables["step"]), "shared")
    return x.mean(axis=(0, 1)) @ variables["out"]


def tagged(model, **knobs):
    return functools.partial(model, jaxcam.tag, **knobs)


def recorded(model, name, nth=0):
    """The layer's output in its `nth` run, seen while Python runs every loop of the model."""
    seen = []

    def at(value, at_name):
        seen.extend([value] if at_name == name else [])
        return value

    with jax.disable_jit():
        model(at, VARIABLES, IMAGE)
    return seen[nth]


def disturbed(model, name, nth=0):
    """The logits as a function of what is added to the layer's `nth` output."""

    def logits(disturbance):
        runs = itertools.count()

        def at(value, at_name):
            return value + disturbance if at_name == name and next(runs) == nth else value

        with jax.disable_jit():
            return model(at, VARIABLES, IMAGE)

    return logits


def count(jaxpr: Any, primitive: str) -> int:
    """Equations of one primitive in a program and all programs inside it."""
    inside = (b for e in jaxpr.eqns for b in programs_in(e))
    here = sum(e.primitive.name == primitive for e in jaxpr.eqns)
    return here + sum(count(body, primitive) for body in inside)


def biggest_constant(jaxpr: Any) -> int:
    """Size of the largest number array that is part of the program itself."""
    literals = [v.val for e in jaxpr.eqns for v in e.invars if isinstance(v, jex.Literal)]
    inside = [biggest_constant(b) for e in jaxpr.eqns for b in programs_in(e)]
    return max([0, *(np.size(x) for x in literals), *inside])


# The tag


def test_tag_is_the_identity_with_its_derivatives():
    x = IMAGE[..., 0]
    chex.assert_trees_all_equal(jaxcam.tag(x, "a"), x)
    chex.assert_trees_all_equal(jax.jit(lambda x: jaxcam.tag(x, "a"))(x), x)
    chex.assert_trees_all_close(
        jax.grad(lambda x: jnp.sin(jaxcam.tag(x, "a")).sum())(x), jnp.cos(x)
    )
    primal, tangent = jax.jvp(lambda x: jaxcam.tag(x, "a"), (x,), (2 * x,))
    chex.assert_trees_all_equal((primal, tangent), (x, 2 * x))
    third = jax.grad(jax.grad(jax.grad(lambda x: jaxcam.tag(x, "a") ** 3)))
    chex.assert_trees_all_close(third(2.0), jnp.float32(6))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_tag_under_vmap_is_the_identity_whatever_the_axis(axis):
    over = jax.vmap(lambda x: jaxcam.tag(x, "a"), in_axes=axis, out_axes=axis)
    chex.assert_trees_all_equal(over(IMAGE), IMAGE)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_layer_under_vmap_lies_as_the_image_does(axis):
    def apply_fn(variables, image):
        def one(x):
            return jaxcam.tag(jnp.sin(x) * variables, "layer").sum()

        return jax.vmap(one, in_axes=axis)(image)

    truth = jnp.sin(IMAGE) * 2.0
    (layer,) = jaxcam.layers(apply_fn, 2.0, IMAGE)
    assert layer.shape == truth.shape
    activations, head = check_law(apply_fn, 2.0, IMAGE, "layer", truth)
    gradient = jax.grad(lambda a: head(a)[1])(activations)
    one = jnp.moveaxis(jnp.zeros_like(truth), axis, 0).at[1].set(1.0)
    chex.assert_trees_all_equal(gradient, jnp.moveaxis(one, 0, axis))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_layer_under_vmap_has_the_batch_axis_in_front_where_nothing_is_proven(axis):
    def apply_fn(variables, image):
        shuffled = jnp.take(image.ravel(), jnp.arange(image.size)).reshape(image.shape)
        return jax.vmap(lambda x: jaxcam.tag(jnp.sin(x), "layer").sum(), in_axes=axis)(shuffled)

    check_law(apply_fn, 2.0, IMAGE, "layer", jnp.moveaxis(jnp.sin(IMAGE), axis, 0))


def branching(variables, image):
    """A layer that returns arrays, whole numbers and nothing at all."""
    value = {"b": image * variables, "a": jnp.cos(image), "n": 3, "i": jnp.arange(2), "none": None}
    value = jaxcam.tag(value, "branches")
    assert value["n"] == 3
    assert value["none"] is None
    return (value["a"] * jnp.sin(value["b"])).sum(axis=(0, 1)) + value["i"].astype(jnp.float32)


def test_tag_names_only_the_floating_point_leaves():
    chex.assert_trees_all_equal(jaxcam.tag(jnp.arange(3), "a"), jnp.arange(3))
    assert jaxcam.tag((None, 2, "text"), "a") == (None, 2, "text")
    assert [layer.leaf for layer in jaxcam.layers(branching, 2.0, IMAGE)] == [0, 1]


@pytest.mark.parametrize(("leaf", "truth"), [(0, jnp.cos(IMAGE)), (1, 2 * IMAGE)])
def test_each_leaf_of_a_layer_can_be_cut(leaf, truth):
    check_law(branching, 2.0, IMAGE, "branches", truth, leaf=leaf)


@pytest.mark.parametrize("leaf", [None, 2, 7, -1])
def test_a_leaf_that_is_not_there_is_refused_with_those_that_are(leaf):
    with pytest.raises(ValueError, match=rf"2 floating-point.*got leaf={leaf}.*\[0, 1\]"):
        jaxcam.split(branching, "branches", leaf=leaf)(2.0, IMAGE)


# The law, wherever the layer runs

CALLS = {
    "bare": lambda fn: fn,
    "jit": jax.jit,
    "nested jit": lambda fn: jax.jit(jax.jit(fn)),
    "checkpoint": jax.checkpoint,
    "jit between checkpoints": lambda fn: jax.checkpoint(jax.jit(jax.checkpoint(fn))),
}


@pytest.mark.parametrize("layer", ["first", "second"])
@pytest.mark.parametrize("call", CALLS)
def test_law_in_calls(layer, call):
    model = tagged(net, wrap=CALLS[call])
    activations, head = check_law(model, VARIABLES, IMAGE, layer, recorded(net, layer))
    check_gradient(activations, head, disturbed(net, layer))


def test_law_where_jit_traced_the_model_before():
    model = jax.jit(tagged(net, wrap=jax.jit))
    model(VARIABLES, IMAGE).block_until_ready()
    check_law(model, VARIABLES, IMAGE, "first", recorded(net, "first"))


def check_run(model, layer, occurrence, runs):
    """One run of a layer that runs often keeps the law, and has the gradient of that run alone."""
    truth = recorded(model, layer, occurrence)
    activations, head = check_law(
        tagged(model), VARIABLES, IMAGE, layer, truth, occurrence=occurrence
    )
    check_gradient(activations, head, disturbed(model, layer, occurrence % runs))


@pytest.mark.parametrize(
    ("occurrence", "reverse"),
    [(0, False), (1, False), (-1, False), (-4, True), (2, True)],
)
def test_law_in_a_scan(occurrence, reverse):
    check_run(functools.partial(loop, reverse=reverse), "step", occurrence, runs=4)


@pytest.mark.parametrize("occurrence", [0, 4, -1])
def test_law_in_a_scan_in_a_jit_in_a_scan(occurrence):
    check_run(nested_loop, "inner", occurrence, runs=6)


def test_law_in_a_loop_of_one_step_needs_no_occurrence():
    def model(at, variables, image):
        def body(_, x):
            return at(jnp.sin(x), "body")

        return jax.lax.fori_loop(0, 1, body, image).sum(axis=(0, 1)) * variables["out"][0, :2]

    check_law(tagged(model), VARIABLES, IMAGE, "body", recorded(model, "body"))


@pytest.mark.parametrize("occurrence", [0, 1, 2, -1])
def test_law_in_a_layer_that_runs_several_times(occurrence):
    check_run(thrice, "shared", occurrence, runs=3)


def test_law_in_a_scan_over_nothing_but_a_count():
    def model(at, variables, image):
        def step(x, _):
            return at(jnp.tanh(x @ variables["step"]), "step"), None

        x, _ = jax.lax.scan(step, image @ variables["first"], None, length=3)
        return x.mean(axis=(0, 1)) @ variables["out"]

    check_law(tagged(model), VARIABLES, IMAGE, "step", recorded(model, "step", 1), occurrence=1)


def test_law_in_a_scan_that_carries_whole_numbers_and_random_keys():
    def model(at, variables, image):
        def step(carry, key):
            x, i = carry
            x = at(jnp.tanh(x + jax.random.uniform(key, x.shape)), "step")
            return (x, i + 1), (key, i, x)

        keys = jax.random.split(jax.random.key(3), 3)
        (x, i), (keys, numbers, xs) = jax.lax.scan(step, (image, 0), keys, unroll=2)
        x = x * i + (xs * numbers[:, None, None, None]).sum(axis=0)
        return x.sum(axis=(0, 1)) * variables["out"][0, :2] + jax.random.uniform(keys[1], (2,))

    truth = recorded(model, "step")
    check_law(tagged(model), VARIABLES, IMAGE, "step", truth, occurrence=0)


@pytest.mark.parametrize("batch_size", [None, 2])
def test_law_in_a_map_over_the_rows_of_the_image(batch_size):
    def model(variables, image):
        def row(x):
            return jaxcam.tag(jnp.sin(x) * variables, "row")

        return jax.lax.map(row, image, batch_size=batch_size).sum(axis=(0, 1))

    truth = 2 * jnp.sin(IMAGE[-2:] if batch_size else IMAGE[-1])
    check_law(model, 2.0, IMAGE, "row", truth, occurrence=-1)


def test_a_loop_that_never_runs_has_no_layers():
    def model(variables, image):
        never = jax.lax.fori_loop(0, 0, lambda _, x: jaxcam.tag(x, "never"), image)
        return jaxcam.tag(never * variables, "layer").sum(axis=(0, 1))

    assert [layer.name for layer in jaxcam.layers(model, 2.0, IMAGE)] == ["layer"]
    with pytest.raises(ValueError, match="no layer 'never'"):
        jaxcam.split(model, "never")(2.0, IMAGE)


# What else the model may hold


@jax.custom_jvp
def odd_jvp(x):
    """A sine that claims the derivative 7."""
    return jnp.sin(x)


odd_jvp.defjvp(lambda primals, tangents: (jnp.sin(primals[0]), 7 * tangents[0]))


@jax.custom_vjp
def odd_vjp(x):
    """A sine that claims the derivative 7 in reverse mode."""
    return jnp.sin(x)


odd_vjp.defvjp(lambda x: (jnp.sin(x), None), lambda _, g: (7 * g,))


@pytest.mark.parametrize("odd", [odd_jvp, odd_vjp])
@pytest.mark.parametrize("wrap", [lambda fn: fn, jax.jit])
def test_custom_derivatives_survive_before_and_after_the_cut(odd, wrap):
    def model(variables, image):
        x = jaxcam.tag(wrap(odd)(image) * variables, "layer")
        return wrap(odd)(x).sum(axis=(0, 1))

    truth = 2 * jnp.sin(IMAGE)
    split_fn = jaxcam.split(model, "layer")
    _, head = check_law(model, 2.0, IMAGE, "layer", truth)
    chex.assert_trees_all_equal(jax.grad(lambda a: head(a).sum())(truth), 7 * jnp.ones_like(truth))

    def rejoined(image):
        activations, head = split_fn(2.0, image)
        return head(activations).sum()

    chex.assert_trees_all_equal(jax.grad(rejoined)(IMAGE), 98 * jnp.ones_like(IMAGE))


def halved(x):
    """Halves until the norm is below 1, in a while loop."""
    return jax.lax.while_loop(lambda x: (x**2).sum() > 1, lambda x: x / 2, x)


def test_law_with_branches_and_endless_loops_before_and_after():
    def model(at, variables, image):
        x = at(jnp.tanh(halved(image) @ variables["first"]), "layer")
        x = jax.lax.cond(x[0, 0, 0] > 2, jnp.zeros_like, jnp.sin, x)
        x = jax.lax.switch(jnp.int32(1), [jnp.cos, jnp.exp, jnp.sin], x)
        return halved(x).sum(axis=(0, 1)) @ variables["out"]

    activations, head = check_law(
        tagged(model), VARIABLES, IMAGE, "layer", recorded(model, "layer")
    )
    # Reverse mode does not go through a while loop, so the tangents are compared.
    got = jax.jvp(head, (activations,), (activations,))[1]
    wanted = jax.jvp(disturbed(model, "layer"), (jnp.zeros_like(activations),), (activations,))[1]
    chex.assert_trees_all_close(got, wanted, atol=1e-6, rtol=1e-5)  # sums in another order


def test_law_where_the_model_takes_a_gradient_of_its_own():
    def model(variables, image):
        def energy(x):
            return jaxcam.tag(jnp.sin(x), "inner").sum() * variables

        value, slope = jax.value_and_grad(energy)(image)
        return value + jnp.tanh(jaxcam.tag(slope, "slope")).sum(axis=(0, 1))

    check_law(model, 2.0, IMAGE, "inner", jnp.sin(IMAGE))
    check_law(model, 2.0, IMAGE, "slope", 2 * jnp.cos(IMAGE))


def test_what_the_model_prints_is_printed_once_per_run(capsys):
    def model(variables, image):
        jax.debug.print("before")
        x = jaxcam.tag(jnp.sin(image), "layer")
        jax.debug.print("after {x:.3f}", x=x[0, 0, 0])
        return x.sum(axis=(0, 1)) * variables

    activations, head = jaxcam.split(model, "layer")(2.0, IMAGE)
    head(jnp.zeros_like(activations))
    head(jnp.ones_like(activations))
    jax.effects_barrier()
    assert capsys.readouterr().out.split("\n") == ["before", "after 0.000", "after 1.000", ""]


def test_law_with_random_keys_and_random_numbers():
    def model(variables, image):
        kernel, key = variables
        noise = jax.random.normal(key, (*image.shape[:2], 4))
        x = jaxcam.tag(image @ kernel + noise, "noisy")
        kept = jax.random.bernoulli(jax.random.fold_in(key, 1), 0.5, x.shape)
        return jnp.where(kept, x, 0).sum(axis=(0, 1))

    key = jax.random.key(7)
    truth = IMAGE @ VARIABLES["first"] + jax.random.normal(key, (4, 3, 4))
    check_law(model, (VARIABLES["first"], key), IMAGE, "noisy", truth)


@pytest.mark.parametrize("under", [lambda fn: fn, jax.jit], ids=["bare", "jit"])
def test_law_with_sharding_constraints(under):
    sharding = jax.sharding.NamedSharding(MESH, PartitionSpec("devices"))

    def model(at, variables, image):
        x = jax.lax.with_sharding_constraint(image @ variables["first"], sharding)
        x = at(jax.jit(jnp.sin, out_shardings=sharding)(x), "layer")
        x = jax.lax.with_sharding_constraint(x, sharding)
        return jnp.cos(x).sum(axis=(0, 1)) @ variables["out"]

    truth = recorded(model, "layer")
    check_law(under(tagged(model)), VARIABLES, IMAGE, "layer", truth)


def test_law_in_bfloat16_activations():
    def model(at, variables, image):
        x = (image @ variables["first"]).astype(jnp.bfloat16)
        x = at(jnp.sin(x), "half")
        return x.astype(jnp.float32).mean(axis=(0, 1)) @ variables["out"]

    truth = recorded(model, "half")
    assert truth.dtype == jnp.bfloat16
    assert jaxcam.layers(tagged(model), VARIABLES, IMAGE)[0].dtype == jnp.bfloat16
    _, head = check_law(tagged(model), VARIABLES, IMAGE, "half", truth)
    assert jax.grad(lambda a: head(a)[TARGET])(truth).dtype == jnp.bfloat16


def test_law_where_the_output_is_a_pytree_with_parts_that_skip_the_layer():
    def model(variables, image):
        x = jaxcam.tag(image * variables, "layer")
        return {"logits": x.sum(axis=(0, 1)), "image": image, "three": 3, "same": x}

    _, head = check_law(model, 2.0, IMAGE, "layer", 2 * IMAGE)
    assert head(IMAGE)["three"] == 3
    chex.assert_trees_all_equal(head(IMAGE)["same"], IMAGE)


def test_law_where_the_layer_is_the_image_itself_or_the_output_itself():
    def model(variables, image):
        x = jaxcam.tag(image, "image")
        return jaxcam.tag(x.sum(axis=(0, 1)) * variables, "logits")

    check_law(model, 2.0, IMAGE, "image", IMAGE)
    check_law(model, 2.0, IMAGE, "logits", 2 * IMAGE.sum(axis=(0, 1)))


def test_two_names_for_one_value_cut_at_the_same_place():
    def model(at, variables, image):
        return at(at(jnp.sin(image), "inside"), "outside").sum(axis=(0, 1)) @ variables["first"]

    for name in ("inside", "outside"):
        check_law(tagged(model), VARIABLES, IMAGE, name, jnp.sin(IMAGE))


# What the parts hold

BLOCK = ("1", "2", "shortcut")
CONVOLUTIONS = ("stem", *(f"block{i}/{part}" for i in (1, 2) for part in BLOCK), "end")


def residual_net(variables, image):
    """Eight convolutions: a stem, two blocks with a shortcut convolution, and an end."""

    def conv(x, name):
        numbers = ("NHWC", "HWIO", "NHWC")
        kernel = variables[name]
        x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)
        return jaxcam.tag(x[0], name)[None]

    def block(x, name):
        y = conv(jax.nn.relu(conv(x, f"{name}/1")), f"{name}/2")
        return jax.nn.relu(y + conv(x, f"{name}/shortcut"))

    x = jax.nn.relu(conv(image[None], "stem"))
    x = jax.jit(functools.partial(block, name="block1"))(x)
    x = jax.checkpoint(functools.partial(block, name="block2"))(x)
    return conv(x, "end")[0].mean(axis=(0, 1))


def residual_case():
    keys = jax.random.split(jax.random.key(3), len(CONVOLUTIONS))
    kernels = {
        name: jax.random.normal(key, (3, 3, 2, 2))
        for name, key in zip(CONVOLUTIONS, keys, strict=True)
    }
    return kernels, IMAGE


@pytest.mark.parametrize(
    ("layer", "before", "after"),
    [("stem", 1, 7), ("block1/1", 3, 5), ("block1/2", 4, 4), ("block2/1", 6, 2), ("end", 8, 0)],
)
def test_shortcuts_past_the_layer_are_computed_once_before_the_cut(layer, before, after):
    variables, image = residual_case()
    split_fn = jaxcam.split(residual_net, layer)
    activations, head = split_fn(variables, image)
    prefix = jax.make_jaxpr(lambda v, x: split_fn(v, x)[0])(variables, image)
    assert count(prefix.jaxpr, "conv_general_dilated") == before
    assert count(jax.make_jaxpr(head)(activations).jaxpr, "conv_general_dilated") == after


def test_scan_steps_after_the_wanted_one_are_all_that_the_head_runs():
    activations, head = jaxcam.split(tagged(loop), "step", occurrence=2)(VARIABLES, IMAGE)
    lengths = [
        eqn.params["length"]
        for eqn in jax.make_jaxpr(head)(activations).jaxpr.eqns
        if eqn.primitive.name == "scan"
    ]
    assert lengths == [1]


def test_parameters_are_arguments_of_both_parts_and_not_constants():
    big = {"first": jnp.ones((2, 500)), "out": jnp.ones((500, 3))}

    def model(variables, image):
        x = jaxcam.tag(jnp.tanh(image @ variables["first"]), "layer")
        return x.mean(axis=(0, 1)) @ variables["out"]

    def parts(variables, image, activations):
        own, head = jaxcam.split(model, "layer")(variables, image)
        return own, head(activations), jax.grad(lambda a: head(a).sum())(activations)

    program = jax.make_jaxpr(parts)(big, IMAGE, jnp.ones((4, 3, 500)))
    assert [c for c in program.consts if np.size(c) > 10] == []
    assert biggest_constant(program.jaxpr) < 10


@pytest.mark.parametrize("asarray", [np.asarray, jnp.asarray])
def test_law_with_a_big_array_closed_over(asarray):
    table = asarray(jax.random.normal(jax.random.key(4), (2, 300)))

    def model(at, variables, image):
        x = at(jnp.tanh(image @ table), "layer")
        x, _ = jax.lax.scan(lambda x, _: (jnp.sin(x + jnp.sum(table)), None), x, length=2)
        return x.mean(axis=(0, 1))[:3] * variables["out"][0]

    truth = recorded(model, "layer")
    activations, head = check_law(tagged(model), VARIABLES, IMAGE, "layer", truth)
    check_gradient(activations, head, disturbed(model, "layer"))
    assert sum(np.size(c) >= 600 for c in jax.make_jaxpr(head)(activations).consts) == 1


def test_head_is_the_same_after_the_variables_it_was_cut_for():
    """A split keeps the values it was given, and another split knows nothing of them."""
    split_fn = jaxcam.split(tagged(net), "first")
    other = jax.tree.map(lambda x: 2 * x, VARIABLES)
    _, head = split_fn(VARIABLES, IMAGE)
    activations, other_head = split_fn(other, IMAGE)
    chex.assert_trees_all_close(other_head(activations), tagged(net)(other, IMAGE), atol=1e-6)
    activations, _ = split_fn(VARIABLES, IMAGE)
    chex.assert_trees_all_close(head(activations), tagged(net)(VARIABLES, IMAGE), atol=1e-6)


# Under the caller's transformations


def test_split_under_jit_and_vmap_over_images():
    images = jnp.stack([IMAGE, 2 * IMAGE, jnp.cos(IMAGE)])
    traces = []

    def apply_fn(variables, image):
        traces.append("trace")
        return net(jaxcam.tag, variables, image)

    def one(image):
        activations, head = jaxcam.split(apply_fn, "first")(VARIABLES, image)
        return activations, head(activations), jax.grad(lambda a: head(a)[TARGET])(activations)

    mapped = jax.jit(jax.vmap(one))(images)
    assert len(traces) == 1
    for i, image in enumerate(images):
        alone, head = jaxcam.split(tagged(net), "first")(VARIABLES, image)
        gradient = jax.grad(lambda a, head=head: head(a)[TARGET])(alone)
        chex.assert_trees_all_close(
            jax.tree.map(lambda x, i=i: x[i], mapped), (alone, head(alone), gradient), atol=1e-6
        )


def test_split_under_vmap_over_targets_and_variables():
    activations, head = jaxcam.split(tagged(net), "second")(VARIABLES, IMAGE)

    def gradient(variables, target):
        activations, head = jaxcam.split(tagged(net), "second")(variables, IMAGE)
        return jax.grad(lambda a: head(a)[target])(activations)

    targets = jnp.arange(3)
    wanted = jax.jacobian(head)(activations)
    got = jax.jit(jax.vmap(gradient, in_axes=(None, 0)))(VARIABLES, targets)
    chex.assert_trees_all_close(got, wanted, atol=1e-6)
    stacked = jax.tree.map(lambda x: jnp.stack([x, 2 * x, 3 * x]), VARIABLES)
    chex.assert_trees_all_close(jax.vmap(gradient)(stacked, targets)[0], wanted[0], atol=1e-6)


def test_split_under_grad_is_differentiable_in_image_and_variables():
    def rejoined(variables, image):
        activations, head = jaxcam.split(tagged(net), "first")(variables, image)
        return head(activations)[TARGET]

    got = jax.grad(rejoined, argnums=(0, 1))(VARIABLES, IMAGE)
    whole = jax.grad(lambda v, x: tagged(net)(v, x)[TARGET], argnums=(0, 1))(VARIABLES, IMAGE)
    chex.assert_trees_all_close(got, whole, atol=1e-6)


def test_a_derivative_of_the_activations_does_nothing_twice_that_leads_to_them():
    def activations(variables, image):
        return jaxcam.split(tagged(net), "second")(variables, image)[0].sum()

    def alone(variables, image):
        return jnp.tanh(jnp.tanh(image @ variables["first"]) @ variables["second"]).sum()

    got, wanted = (
        jax.make_jaxpr(jax.grad(f, argnums=(0, 1)))(VARIABLES, IMAGE).jaxpr
        for f in (activations, alone)
    )
    for primitive in ("dot_general", "tanh"):
        assert count(got, primitive) == count(wanted, primitive) > 0


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_complex_numbers_on_the_way_to_the_layer_have_a_derivative(wrap):
    def network(variables, image):
        turn = jax.lax.complex(jnp.cos(variables["step"][0, :2]), jnp.sin(variables["step"][0, :2]))
        spectrum = jnp.fft.fft2(image, axes=(0, 1)) * turn[None, None]
        features = jaxcam.tag(jnp.tanh(jnp.fft.ifft2(spectrum, axes=(0, 1)).real), "features")
        return features.mean((0, 1))

    def total(image):
        return wrap(lambda image: jaxcam.split(network, "features")(VARIABLES, image)[0])(image)

    got = jax.grad(lambda image: total(image).mean((0, 1))[0])(IMAGE)
    wanted = jax.grad(lambda image: network(VARIABLES, image)[0])(IMAGE)
    chex.assert_trees_all_close(got, wanted, atol=1e-6)


def test_what_leads_to_the_layer_is_one_call_of_a_trace():
    def activations(variables, image):
        return jaxcam.split(tagged(net), "second")(variables, image)[0]

    def printing(variables, image):
        jax.debug.print("{}", image.sum())
        return tagged(net)(variables, image)

    def printed(variables, image):
        return jaxcam.split(printing, "second")(variables, image)[0]

    traced = [jax.make_jaxpr(f)(VARIABLES, IMAGE).jaxpr for f in (activations, printed)]
    names = [[eqn.primitive.name for eqn in jaxpr.eqns] for jaxpr in traced]
    assert names[0] in (["jit"], ["pjit"])
    assert names[1].count("tanh") == 2
    wanted = activations(VARIABLES, IMAGE)
    chex.assert_trees_all_close(jax.jit(activations)(VARIABLES, IMAGE), wanted, atol=1e-6)
    with jax.disable_jit():
        assert jax.eval_shape(activations, VARIABLES, IMAGE).shape == wanted.shape


def test_split_inside_the_callers_scan():
    def step(total, image):
        activations, head = jaxcam.split(tagged(net), "first")(VARIABLES, image)
        return total + head(activations), activations

    images = jnp.stack([IMAGE, 2 * IMAGE])
    total, activations = jax.lax.scan(step, jnp.zeros(3), images)
    wanted = sum(tagged(net)(VARIABLES, image) for image in images)
    chex.assert_trees_all_close(total, wanted, atol=1e-6)
    chex.assert_trees_all_close(activations[0], recorded(net, "first"), atol=1e-6)


def test_a_model_that_closes_over_traced_values():
    @jax.jit
    def logits(variables):
        def model(nothing, image):
            return tagged(net, wrap=jax.jit)(variables, image)

        activations, head = jaxcam.split(model, "second")((), IMAGE)
        return head(activations)

    chex.assert_trees_all_close(logits(VARIABLES), tagged(net)(VARIABLES, IMAGE), atol=1e-6)


# The listing


def described(listing):
    return [(x.name, x.shape, x.dtype.name, x.runs, x.leaf) for x in listing]


def test_layers_in_order_of_execution_with_shapes_dtypes_runs_and_leaves():
    def model(variables, image):
        x = jaxcam.tag(image @ variables["first"], "zebra")
        x, _ = jax.lax.scan(
            lambda x, _: (jaxcam.tag(jaxcam.tag(x, "twice") + 1, "twice"), None), x, length=3
        )
        x = jax.jit(lambda x: jaxcam.tag((x.astype(jnp.float16), x), "pair"))(x)[1]
        return jaxcam.tag(x.sum(axis=(0, 1)), "apple")

    wanted = [
        ("zebra", (4, 3, 4), "float32", 1, 0),
        ("twice", (4, 3, 4), "float32", 6, 0),
        ("pair", (4, 3, 4), "float16", 1, 0),
        ("pair", (4, 3, 4), "float32", 1, 1),
        ("apple", (4,), "float32", 1, 0),
    ]
    assert described(jaxcam.layers(model, VARIABLES, IMAGE)) == wanted


def test_layers_of_shapes_alone_are_those_of_arrays():
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (VARIABLES, IMAGE))
    listing = jaxcam.layers(tagged(nested_loop), *shapes)
    assert described(listing) == [("inner", (4, 3, 4), "float32", 6, 0)]
    assert listing == jaxcam.layers(tagged(nested_loop), VARIABLES, IMAGE)


def test_layers_leaves_out_what_no_cut_reaches_and_lists_all_that_it_does():
    def model(variables, image):
        x = jaxcam.tag(image, "open")
        x = jax.lax.cond(x[0, 0, 0] > 0, lambda x: jaxcam.tag(x, "closed"), jnp.sin, x)
        return x.sum(axis=(0, 1)) * variables

    assert [layer.name for layer in jaxcam.layers(model, 2.0, IMAGE)] == ["open"]
    for layer in jaxcam.layers(tagged(net), VARIABLES, IMAGE):
        truth = recorded(net, layer.name)
        check_law(tagged(net), VARIABLES, IMAGE, layer.name, truth)


# Refusals


def in_cond(fn, x):
    return jax.lax.cond(x[0, 0, 0] > 0, fn, jnp.cos, x)


def in_while(fn, x):
    return jax.lax.while_loop(lambda x: (x**2).sum() > 1, fn, x)


def in_custom_jvp(fn, x):
    fn = jax.custom_jvp(fn)
    fn.defjvp(lambda primals, tangents: (primals[0], tangents[0]))
    return fn(x)


def in_custom_vjp(fn, x):
    fn = jax.custom_vjp(fn)
    fn.defvjp(lambda x: (x, None), lambda _, g: (g,))
    return fn(x)


def in_shard_map(fn, x):
    return jax.shard_map(fn, mesh=MESH, in_specs=PartitionSpec(), out_specs=PartitionSpec())(x)


def in_scan_in_cond(fn, x):
    looped = functools.partial(jax.lax.fori_loop, 0, 2, lambda _, x: fn(x))
    return in_cond(looped, x)


CLOSED = [
    (in_cond, "cond"),
    (in_while, "while"),
    (in_custom_jvp, "custom_jvp_call"),
    (in_custom_vjp, "custom_vjp_call"),
    (in_shard_map, "shard_map"),
    (in_scan_in_cond, "cond"),
]


@pytest.mark.parametrize(("inside", "primitive"), CLOSED)
def test_a_layer_where_no_cut_can_be_made_is_refused_with_the_primitive(inside, primitive):
    def model(variables, image):
        x = inside(lambda x: jaxcam.tag(x / 2, "deep"), image)
        return jaxcam.tag(x, "around").sum(axis=(0, 1)) * variables

    with pytest.raises(ValueError, match=rf"'deep' runs inside `{primitive}`.*encloses it"):
        jaxcam.split(model, "deep")(2.0, IMAGE)
    activations, head = jaxcam.split(model, "around")(2.0, IMAGE)
    chex.assert_trees_all_close(head(activations), model(2.0, IMAGE), atol=1e-6)


def test_an_unknown_layer_is_refused_with_the_nearest_and_all_names():
    with pytest.raises(
        ValueError, match=r"no layer 'sceond'\. Did you mean 'second'\? .*first, se"
    ):
        jaxcam.split(tagged(net), "sceond")(VARIABLES, IMAGE)
    with pytest.raises(ValueError, match=r"no layer 'x'\. There are: first, second$"):
        jaxcam.split(tagged(net), "x")(VARIABLES, IMAGE)


def test_of_an_unknown_layer_the_names_are_those_that_are_listed():
    def model(variables, image):
        scale = jaxcam.tag(variables * jnp.ones((2, 2)), "parameter").mean()
        return jaxcam.tag(image * scale, "layer").sum(axis=(0, 1))

    with pytest.raises(ValueError, match=r"no layer 'laier'\. Did .* There are: layer$"):
        jaxcam.split(model, "laier")(2.0, IMAGE)


def test_an_unknown_layer_among_many_is_refused_with_a_short_list():
    def model(variables, image):
        for i in range(25):
            image = jaxcam.tag(image, f"layer{i}")
        return image * variables

    with pytest.raises(ValueError, match=r"layer19 and 5 more$"):
        jaxcam.split(model, "")(2.0, IMAGE)


def test_a_model_without_layers_is_refused_with_the_ways_to_name_them():
    with pytest.raises(ValueError, match=r"no named layers.*from_linen.*from_nnx.*jaxcam\.tag"):
        jaxcam.split(lambda variables, image: image * variables, "layer")(2.0, IMAGE)
    assert jaxcam.layers(lambda variables, image: image * variables, 2.0, IMAGE) == ()


@pytest.mark.parametrize("occurrence", [None, 3, -4])
@pytest.mark.parametrize(("model", "runs"), [(thrice, 3), (loop, 4)])
def test_a_run_that_is_not_there_is_refused_with_the_number_of_runs(model, runs, occurrence):
    if occurrence == 3 and runs == 4:
        occurrence = 4
    if occurrence == -4 and runs == 4:
        occurrence = -5
    name = "shared" if model is thrice else "step"
    message = rf"runs {runs} times, got occurrence={occurrence}.*0 to {runs - 1}.*-1"
    with pytest.raises(ValueError, match=message):
        jaxcam.split(tagged(model), name, occurrence=occurrence)(VARIABLES, IMAGE)


def test_a_layer_that_the_output_does_not_need_is_refused():
    def model(variables, image):
        jaxcam.tag(jnp.sin(image), "unused")
        pair = jaxcam.tag((jnp.cos(image), image), "half used")
        return pair[0].sum(axis=(0, 1)) * variables

    with pytest.raises(ValueError, match=r"does not depend on layer 'unused'"):
        jaxcam.split(model, "unused")(2.0, IMAGE)
    with pytest.raises(ValueError, match=r"does not depend on layer 'half used'.*leaf="):
        jaxcam.split(model, "half used", leaf=1)(2.0, IMAGE)


@pytest.mark.parametrize(
    "activations", [jnp.zeros((4, 3, 3)), jnp.zeros((4, 3)), jnp.zeros((4, 3, 4), jnp.bfloat16)]
)
def test_a_head_refuses_activations_that_it_was_not_cut_for(activations):
    _, head = jaxcam.split(tagged(net), "first")(VARIABLES, IMAGE)
    with pytest.raises(ValueError, match=r"'first' got .*cut for float32\[4, 3, 4\]"):
        head(activations)
    with pytest.raises(ValueError, match=r"'first' got"):
        jax.jit(head)(activations)


def squares(x, fn):
    """The square of `fn(x)`, through a mutable ref that it makes itself."""
    ref = jax.new_ref(jnp.zeros_like(x))
    ref[...] = fn(x)
    return ref[...] ** 2


@pytest.mark.parametrize("around", [lambda fn: fn, jax.jit], ids=["bare", "jit"])
def test_mutable_refs_around_a_cut_are_refused(around):
    def before(variables, image):
        return jaxcam.tag(around(lambda x: squares(x, jnp.sin))(image), "layer") * variables

    def inside(variables, image):
        return around(lambda x: squares(x, lambda x: jaxcam.tag(x, "layer")))(image) * variables

    for model in (before, inside):
        with pytest.raises(ValueError, match=r"mutable refs.*plain arrays"):
            jaxcam.split(model, "layer")(2.0, IMAGE)


def test_a_mutable_ref_from_outside_the_model_is_refused():
    kept = jax.new_ref(jnp.zeros_like(IMAGE))

    def model(variables, image):
        kept[...] = jaxcam.tag(jnp.sin(image), "layer")
        return kept[...] * variables

    with pytest.raises(ValueError, match=r"mutable refs.*plain arrays"):
        jaxcam.split(model, "layer")(2.0, IMAGE)


def test_mutable_refs_of_a_closed_part_of_the_model_are_no_concern():
    def model(variables, image):
        x = jaxcam.tag(jnp.sin(image), "layer")
        x, _ = jax.lax.scan(lambda x, _: (squares(x, jnp.cos), None), x, length=2)
        return x.sum(axis=(0, 1)) * variables

    check_law(model, 2.0, IMAGE, "layer", jnp.sin(IMAGE))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda v, x: (v, x[..., :1]), r"float32\[8, 8, 1\]"),
        (lambda v, x: (v, jnp.stack([x, x])), r"float32\[2, 8, 8, 3\]"),
        (lambda v, x: ({}, x), "with these variables.* KeyError: 'kernel'"),
    ],
)
def test_what_a_model_cannot_run_on_is_said_in_one_line(given, said):
    def apply_fn(variables, image):
        image = jaxcam.tag(image, "image")
        spec = {"window_strides": (1, 1), "padding": "SAME"}
        x = jax.lax.conv_general_dilated(
            image[None], variables["kernel"], **spec, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return x.mean((0, 1, 2))

    variables, image = {"kernel": jnp.ones((3, 3, 3, 5))}, jnp.ones((8, 8, 3))
    jaxcam.explainer(apply_fn, "image")(variables, image)
    for ask in (jaxcam.explainer(apply_fn, "image"), functools.partial(jaxcam.layers, apply_fn)):
        with pytest.raises(ValueError, match=f"the model does not run on the image .*{said}") as e:
            ask(*given(variables, image))
        assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (({"kernel": "text"}, IMAGE), r"variables\['kernel'\] is a str; wanted arrays alone"),
        ((jnp.sum, IMAGE), "variables is a .*; wanted arrays alone"),
        ((IMAGE, {"kernel": IMAGE}), r"an image of type dict; wanted \(variables, image\)"),
    ],
)
def test_what_is_no_variables_or_no_image_is_refused(given, said):
    def apply_fn(variables, image):
        raise AssertionError

    for ask in (jaxcam.layers, jaxcam.suggest_layer):
        with pytest.raises(ValueError, match=said):
            ask(apply_fn, *given)


def test_layers_are_listed_beside_a_ref_in_the_variables_and_a_cut_is_refused():
    def apply_fn(ref, image):
        return jaxcam.tag(image * ref[...], "layer").mean((0, 1))

    ref = jax.new_ref(jnp.ones((1, 1, 2)))
    assert jaxcam.layers(apply_fn, ref, IMAGE)[0].name == "layer"
    with pytest.raises(ValueError, match="reads or writes mutable refs"):
        jaxcam.explainer(apply_fn, "layer")(ref, IMAGE)


def test_a_layer_of_another_model_is_refused():
    def apply_fn(variables, image):
        return jaxcam.tag(image, "image").mean((0, 1))

    def other_fn(variables, image):
        return -apply_fn(variables, image)

    image = jnp.ones((4, 4, 3))
    with pytest.raises(ValueError, match="cut out of another apply_fn than is explained"):
        jaxcam.explainer(other_fn, jaxcam.split(apply_fn, "image"))({}, image)
    layer: Any = linen.Dense(4)
    with pytest.raises(ValueError, match="wanted its name, as jaxcam"):
        jaxcam.explainer(apply_fn, layer)({}, image)
