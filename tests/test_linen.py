"""Unmodified Flax linen modules: every layer found, named by its path, and cut where it runs."""

import functools
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cut_law import check_gradient, check_law, filled

import jaxcam

IMAGE = jax.random.normal(jax.random.key(0), (4, 3, 2))
BATCH = IMAGE[None]
KEY = jax.random.key(2)


def initialized(module, **kwargs):
    keys = {"params": jax.random.key(1), "dropout": KEY}
    return filled(jax.eval_shape(functools.partial(module.init, **kwargs), keys, BATCH))


def captured(module, variables, image=IMAGE, **kwargs):
    """What every submodule returned, run by run, by path, as the module itself records it."""
    kwargs |= {"capture_intermediates": True, "mutable": ["intermediates"]}
    _, state = module.apply(variables, image[None], **kwargs)
    recorded = jax.tree_util.tree_flatten_with_path(state["intermediates"])[0]
    outputs = {}
    for path, value in recorded:
        *names, method, _ = (str(getattr(part, "key", None)) for part in path)
        if method == "__call__":
            outputs.setdefault("/".join(names), []).append(value[0])
    outputs.pop("", None)
    return outputs


def listed(apply_fn, variables, image=IMAGE):
    return [layer.name for layer in jaxcam.layers(apply_fn, variables, image)]


def has_tags(fn, *args):
    return "jaxcam_tag" in str(jax.make_jaxpr(fn)(*args))


class Block(nn.Module):
    """A convolution and a nonlinearity."""

    features: int = 4

    @nn.compact
    def __call__(self, x):
        return nn.tanh(nn.Conv(self.features, (3, 3), name="conv")(x))


class Net(nn.Module):
    """Two blocks of one class, which a transformation may be around, and a classifier."""

    block: Any = Block

    @nn.compact
    def __call__(self, x):
        x = self.block(name="one")(x)
        x = self.block(name="two")(x)
        return nn.Dense(3, name="out")(x.mean(axis=(1, 2)))


NET_LAYERS = ["one/conv", "one", "two/conv", "two", "out"]
NET_VARIABLES = initialized(Net())


class SetupNet(nn.Module):
    """Put together in setup, with methods besides `__call__`."""

    def setup(self):
        self.blocks = [Block(), Block()]
        self.head = {"out": nn.Dense(3)}

    def embed(self, x):
        for block in self.blocks:
            x = block(x)
        return x

    def _classify(self, x):
        return self.head["out"](x.mean(axis=(1, 2)))

    def classify(self, x):
        return self._classify(self.embed(x))

    def __call__(self, x):
        return self.classify(x)


class Outer(nn.Module):
    """Calls its submodule by another method than `__call__`."""

    @nn.compact
    def __call__(self, x):
        encoder = SetupNet(name="encoder")
        return encoder._classify(jnp.sin(encoder.embed(x)))


class Normed(nn.Module):
    """With statistics, and with dropout, which evaluation turns off."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(4, (1, 1), name="conv")(x)
        x = nn.BatchNorm(not train, name="norm")(x)
        x = nn.Dropout(0.5, deterministic=not train, name="dropout")(nn.tanh(x))
        return nn.Dense(3, name="out")(x.mean(axis=(1, 2)))


# Where layers are


@pytest.mark.parametrize(
    "transform",
    [lambda c: c, nn.remat, nn.jit, lambda c: nn.jit(nn.remat(c))],
    ids=["bare", "remat", "jit", "jit of remat"],
)
@pytest.mark.parametrize("of_model", [False, True], ids=["blocks", "model"])
def test_law_at_layers_under_class_transformations(transform, of_model):
    module = transform(Net)() if of_model else Net(transform(Block))
    apply_fn = jaxcam.from_linen(module)
    assert listed(apply_fn, NET_VARIABLES) == NET_LAYERS
    truth = captured(Net(), NET_VARIABLES)
    for layer in ("one/conv", "two"):
        check_law(apply_fn, NET_VARIABLES, IMAGE, layer, truth[layer][0])


def test_law_at_every_layer_of_nested_modules():
    truth = captured(Net(), NET_VARIABLES)
    assert set(truth) == set(NET_LAYERS)
    for layer in NET_LAYERS:
        check_law(jaxcam.from_linen(Net()), NET_VARIABLES, IMAGE, layer, truth[layer][0])


def test_jitted_twins_that_were_traced_before_keep_their_own_names():
    """Both blocks are one jitted class with one configuration, and jit has seen them untagged."""
    module = Net(nn.jit(Block))
    module.apply(NET_VARIABLES, BATCH)
    jax.jit(module.apply)(NET_VARIABLES, BATCH)
    truth = captured(Net(), NET_VARIABLES)
    apply_fn = jaxcam.from_linen(module)
    for layer in ("two/conv", "one/conv", "two", "one"):
        check_law(apply_fn, NET_VARIABLES, IMAGE, layer, truth[layer][0])


def test_law_where_lifted_functions_call_the_layers():
    class Lifted(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.remat(lambda block, x: block(x))(Block(2, name="kept"), x)
            x = nn.jit(lambda block, x: block(x))(Block(2, name="jitted"), x)
            loop = nn.scan(
                lambda block, x, _: (block(x), None),
                variable_broadcast="params",
                split_rngs={"params": False},
                length=2,
            )
            x, _ = loop(Block(2, name="looped"), x, None)
            return nn.Dense(3, name="out")(x.mean(axis=(1, 2)))

    variables = initialized(Lifted())
    apply_fn = jaxcam.from_linen(Lifted())
    x = BATCH
    for layer, choice in [
        ("kept", {}),
        ("jitted", {}),
        *(("looped", {"occurrence": i}) for i in range(2)),
    ]:
        x = Block(2).apply({"params": variables["params"][layer]}, x)
        check_law(apply_fn, variables, IMAGE, layer, x[0], **choice)


class Step(nn.Module):
    """A block as a step of `nn.scan`, which also gives an output per step."""

    @nn.compact
    def __call__(self, x, scale):
        x = Block(2, name="block")(x) * scale
        return x, x.mean(axis=(1, 2))


class Scanned(nn.Module):
    """Three steps with their own parameters, in one loop."""

    @nn.compact
    def __call__(self, x):
        steps = nn.scan(
            Step, variable_axes={"params": 0}, split_rngs={"params": True}, out_axes=0, length=3
        )
        x, means = steps(name="steps")(x, jnp.arange(1.0, 4.0))
        return nn.Dense(3, name="out")(x.mean(axis=(1, 2)) + means.sum(axis=0))


def scanned_by_hand(variables, disturbance=0.0, at=-1):
    """The outputs of the block in each step, and the logits."""
    params, x = variables["params"], BATCH
    outputs, means = [], []
    for i in range(3):
        own = jax.tree.map(lambda p, i=i: p[i], params["steps"]["block"])
        y = jnp.asarray(Block(2).apply({"params": own}, x))
        y = y + disturbance if i == at else y
        outputs.append(y[0])
        x = y * jnp.float32(i + 1)
        means.append(x.mean(axis=(1, 2)))
    logits = nn.Dense(3).apply({"params": params["out"]}, x.mean(axis=(1, 2)) + sum(means))
    return outputs, logits[0]


@pytest.mark.parametrize(
    ("occurrence", "transform"),
    [(0, lambda c: c), (1, nn.remat), (-1, lambda c: c)],
    ids=["first", "middle in remat", "last"],
)
def test_law_in_scanned_layers_with_stacked_parameters(occurrence, transform):
    module = transform(Scanned)()
    variables = initialized(Scanned())
    apply_fn = jaxcam.from_linen(module)
    assert ("steps/block", 3) in [
        (x.name, x.runs) for x in jaxcam.layers(apply_fn, variables, IMAGE)
    ]
    outputs, logits = scanned_by_hand(variables)
    chex.assert_trees_all_close(apply_fn(variables, IMAGE), logits, atol=1e-6)
    activations, head = check_law(
        apply_fn, variables, IMAGE, "steps/block", outputs[occurrence], occurrence=occurrence
    )
    by_hand = functools.partial(scanned_by_hand, variables, at=occurrence % 3)
    check_gradient(activations, head, lambda d: by_hand(d[None])[1])


class Ensemble(nn.Module):
    """Five blocks with their own parameters that see the same image."""

    in_axes: Any = None

    @nn.compact
    def __call__(self, x):
        members = nn.vmap(
            Block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=self.in_axes,
            axis_size=5,
        )
        x = members(2, name="members")(x)
        return nn.Dense(3, name="out")(x.prod(axis=0).mean(axis=(1, 2)))


def test_law_in_vmapped_layers_with_stacked_parameters():
    variables = initialized(Ensemble())
    members = [jax.tree.map(lambda p, i=i: p[i], variables["params"]["members"]) for i in range(5)]
    truth = jnp.stack([Block(2).apply({"params": own}, BATCH)[0] for own in members])
    check_law(jaxcam.from_linen(Ensemble()), variables, IMAGE, "members", truth)


def test_a_layer_that_is_vmapped_over_the_batch_is_seen_without_it():
    class Single(nn.Module):
        @nn.compact
        def __call__(self, x):
            axes = {"variable_axes": {"params": None}, "split_rngs": {"params": False}}
            x = nn.vmap(Block, **axes, in_axes=0)(2, name="single")(x)
            return nn.Dense(3, name="out")(x.mean(axis=(1, 2)))

    variables = initialized(Single())
    own = {"params": variables["params"]["single"]}
    truth = jnp.asarray(Block(2).apply(own, BATCH))[0]
    check_law(jaxcam.from_linen(Single()), variables, IMAGE, "single", truth)


def test_law_in_a_module_that_is_called_twice():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x):
            block = Block(2, name="block")
            return nn.Dense(3, name="out")(block(jnp.sin(block(x))).mean(axis=(1, 2)))

    variables = initialized(Twice())
    truth = captured(Twice(), variables)
    for layer in ("block", "block/conv"):
        for occurrence in (0, 1):
            apply_fn = jaxcam.from_linen(Twice())
            wanted = truth[layer][occurrence]
            check_law(apply_fn, variables, IMAGE, layer, wanted, occurrence=occurrence)
    with pytest.raises(ValueError, match="runs 2 times"):
        jaxcam.split(jaxcam.from_linen(Twice()), "block")(variables, IMAGE)


def test_law_in_a_module_that_is_shared_between_two_others():
    class Caller(nn.Module):
        shared: nn.Module

        @nn.compact
        def __call__(self, x):
            return jnp.sin(self.shared(x))

    class Sharing(nn.Module):
        @nn.compact
        def __call__(self, x):
            block = Block(2, name="block")
            x = Caller(block, name="second")(Caller(block, name="first")(x))
            return nn.Dense(3, name="out")(x.mean(axis=(1, 2)))

    variables = initialized(Sharing())
    truth = captured(Sharing(), variables)
    apply_fn = jaxcam.from_linen(Sharing())
    for layer, occurrence in [("block", 0), ("block", 1), ("first", 0), ("second", 0)]:
        wanted = truth[layer][occurrence]
        check_law(apply_fn, variables, IMAGE, layer, wanted, occurrence=occurrence)


def test_law_in_a_module_put_together_in_setup():
    variables = initialized(SetupNet())
    truth = captured(SetupNet(), variables)
    names = ["blocks_0/conv", "blocks_0", "blocks_1/conv", "blocks_1", "head_out"]
    apply_fn = jaxcam.from_linen(SetupNet())
    assert listed(apply_fn, variables) == names
    for layer in names[1:3]:
        check_law(apply_fn, variables, IMAGE, layer, truth[layer][0])


def test_law_in_a_sequential():
    module = nn.Sequential([Block(), nn.relu, lambda x: x.mean(axis=(1, 2)), nn.Dense(3)])
    variables = initialized(module)
    truth = captured(module, variables)
    apply_fn = jaxcam.from_linen(module)
    assert listed(apply_fn, variables) == ["layers_0/conv", "layers_0", "layers_3"]
    for layer in truth:
        check_law(apply_fn, variables, IMAGE, layer, truth[layer][0])


def test_a_subclass_that_calls_its_parent_is_one_layer():
    class Doubled(Block):
        @nn.compact
        def __call__(self, x):
            return 2 * super().__call__(x)

    module = Net(Doubled)
    apply_fn = jaxcam.from_linen(module)
    assert listed(apply_fn, NET_VARIABLES) == NET_LAYERS
    assert {x.runs for x in jaxcam.layers(apply_fn, NET_VARIABLES, IMAGE)} == {1}
    truth = captured(module, NET_VARIABLES)["one"][-1]
    check_law(apply_fn, NET_VARIABLES, IMAGE, "one", truth)


def test_law_with_attention():
    class Attentive(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(4, name="embed")(x.reshape(1, -1, 2))
            x = x + nn.MultiHeadDotProductAttention(2, name="attention")(nn.LayerNorm()(x))
            return nn.Dense(3, name="out")(x.mean(axis=1))

    variables = initialized(Attentive())
    truth = captured(Attentive(), variables)
    apply_fn = jaxcam.from_linen(Attentive())
    for layer in ("embed", "LayerNorm_0", "attention/value", "attention"):
        check_law(apply_fn, variables, IMAGE, layer, truth[layer][0])
    assert set(listed(apply_fn, variables)) == set(truth)


# What the module needs and returns


def normed_by_hand(variables, disturbance):
    """The network with statistics, written out, with something added to its convolution."""
    params, stats = variables["params"], variables["batch_stats"]["norm"]
    bias, scale = params["norm"]["bias"], params["norm"]["scale"]
    x = jnp.einsum("hwc,ck->hwk", IMAGE, params["conv"]["kernel"][0, 0], precision="highest")
    x = x + params["conv"]["bias"][None, None] + disturbance
    x = (x - stats["mean"][None, None]) / jnp.sqrt(stats["var"] + 1e-5)[None, None]
    x = jnp.tanh(x * scale[None, None] + bias[None, None])
    return x.mean(axis=(0, 1)) @ params["out"]["kernel"] + params["out"]["bias"]


def test_law_with_statistics_and_without_dropout_in_evaluation():
    variables = initialized(Normed(), train=False)
    stats = {"norm": {"mean": jnp.linspace(-1.0, 1.0, 4), "var": jnp.linspace(0.5, 2.0, 4)}}
    variables = {**variables, "batch_stats": stats}
    apply_fn = jaxcam.from_linen(Normed(), train=False)
    truth = captured(Normed(), variables, train=False)
    for layer in ("conv", "norm", "dropout"):
        activations, head = check_law(apply_fn, variables, IMAGE, layer, truth[layer][0])
        if layer == "conv":
            check_gradient(activations, head, lambda d: normed_by_hand(variables, d))


def test_law_with_dropout_on_and_its_random_keys():
    class Noisy(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dropout(0.5, deterministic=False, name="dropout")(Block(name="block")(x))
            return nn.Dense(3, name="out")(x.mean(axis=(1, 2)))

    variables = initialized(Noisy())
    rngs = {"dropout": jax.random.key(5)}
    truth = captured(Noisy(), variables, rngs=rngs)
    apply_fn = jaxcam.from_linen(Noisy(), rngs=rngs)
    wanted = Noisy().apply(variables, BATCH, rngs=rngs)
    chex.assert_trees_all_close(apply_fn(variables, IMAGE), wanted[0], atol=1e-6)
    for layer in ("block", "dropout"):
        check_law(apply_fn, variables, IMAGE, layer, truth[layer][0])


def test_law_with_updates_of_the_state():
    """In training, where the logits come with new statistics."""
    variables = initialized(Normed(), train=True)
    kwargs = {"train": True, "rngs": {"dropout": KEY}}
    apply_fn = jaxcam.from_linen(
        Normed(), mutable=["batch_stats"], output_fn=lambda output: output[0], **kwargs
    )
    wanted, _ = Normed().apply(variables, BATCH, mutable=["batch_stats"], **kwargs)
    activations, head = jaxcam.split(apply_fn, "norm")(variables, IMAGE)
    chex.assert_trees_all_close(head(activations), wanted[0], atol=1e-6)
    assert not np.allclose(head(jnp.zeros_like(activations)), wanted[0], atol=1e-3)


@pytest.mark.parametrize("method", ["classify", SetupNet.classify])
def test_another_method_of_the_model_is_called_by_name_and_by_function(method):
    variables = initialized(SetupNet())
    apply_fn = jaxcam.from_linen(SetupNet(), method=method)
    truth = captured(SetupNet(), variables)["blocks_1"][0]
    check_law(apply_fn, variables, IMAGE, "blocks_1", truth)


def test_a_method_of_a_submodule_is_a_layer_of_its_own():
    variables = initialized(Outer())
    apply_fn = jaxcam.from_linen(Outer())
    inside = {"params": variables["params"]["encoder"]}
    truth = SetupNet().apply(inside, BATCH, method="embed")
    check_law(apply_fn, variables, IMAGE, "encoder:embed", truth[0])
    assert "encoder:_classify" not in listed(apply_fn, variables)


@pytest.mark.parametrize(
    ("pack", "output_fn"),
    [
        (lambda logits, x: (x, logits), lambda output: output[1]),
        (lambda logits, x: {"logits": logits, "x": x}, lambda output: output["logits"]),
    ],
    ids=["tuple", "dict"],
)
def test_logits_are_taken_out_of_what_the_model_returns(pack, output_fn):
    class Packed(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = Block(name="block")(x)
            return pack(nn.Dense(3, name="out")(x.mean(axis=(1, 2))), x)

    variables = initialized(Packed())
    apply_fn = jaxcam.from_linen(Packed(), output_fn=output_fn)
    assert apply_fn(variables, IMAGE).shape == (3,)
    check_law(apply_fn, variables, IMAGE, "block", captured(Packed(), variables)["block"][0])


def test_a_layer_that_returns_several_arrays_has_leaves():
    class Fork(nn.Module):
        @nn.compact
        def __call__(self, x):
            return {"b": Block(name="block")(x), "a": jnp.sin(x), "count": jnp.arange(1)}

    class Forked(nn.Module):
        @nn.compact
        def __call__(self, x):
            both = Fork(name="fork")(x)
            x = both["b"].mean(axis=(1, 2)) + both["a"].sum(axis=(1, 2, 3))[:, None]
            return nn.Dense(3, name="out")(x)

    variables = initialized(Forked())
    apply_fn = jaxcam.from_linen(Forked())
    check_law(apply_fn, variables, IMAGE, "fork", jnp.sin(IMAGE), leaf=0)
    block = {"params": variables["params"]["fork"]["block"]}
    check_law(apply_fn, variables, IMAGE, "fork", Block().apply(block, BATCH)[0], leaf=1)
    with pytest.raises(ValueError, match=r"leaf=None.*\[0, 1\]"):
        jaxcam.split(apply_fn, "fork")(variables, IMAGE)


def test_a_layer_in_a_branch_is_refused():
    class Branching(nn.Module):
        @nn.compact
        def __call__(self, x):
            block = Block(name="block")
            if self.is_initializing():
                block(x)
            branches = (lambda block, x: block(x), lambda block, x: 2 * block(x))
            x = nn.cond(x[0, 0, 0, 0] > 0, *branches, block, x)
            return nn.Dense(3, name="out")(x.mean(axis=(1, 2)))

    variables = initialized(Branching())
    with pytest.raises(ValueError, match="'block' runs inside `cond`"):
        jaxcam.split(jaxcam.from_linen(Branching()), "block")(variables, IMAGE)


# The module stays as it is


@pytest.mark.parametrize(
    "block", [Block, nn.jit(Block), nn.remat(Block)], ids=["bare", "jit", "remat"]
)
def test_the_module_is_not_changed_by_being_cut(block):
    module = Net(block)
    before = module.apply(NET_VARIABLES, BATCH)
    call = type(module).__call__
    apply_fn = jaxcam.from_linen(module)
    jaxcam.split(apply_fn, "one")(NET_VARIABLES, IMAGE)
    assert has_tags(apply_fn, NET_VARIABLES, IMAGE)
    assert not has_tags(module.apply, NET_VARIABLES, BATCH)
    assert not has_tags(jax.jit(module.apply), NET_VARIABLES, BATCH)
    assert type(module).__call__ is call
    assert module == Net(block)
    chex.assert_trees_all_equal(module.apply(NET_VARIABLES, BATCH), before)


def test_an_interceptor_of_the_caller_still_runs():
    seen = []

    def watch(next_fn, args, kwargs, context):
        seen.append(context.module.path)
        return next_fn(*args, **kwargs)

    with nn.intercept_methods(watch):
        listing = listed(jaxcam.from_linen(Net()), NET_VARIABLES)
    assert listing == NET_LAYERS
    assert ("one", "conv") in seen


def test_layers_of_shapes_alone():
    shapes = jax.eval_shape(lambda: (NET_VARIABLES, IMAGE))
    assert listed(jaxcam.from_linen(Net()), *shapes) == NET_LAYERS


def test_split_under_vmap_over_images_and_jit():
    images = jnp.stack([IMAGE, jnp.cos(IMAGE)])
    apply_fn = jaxcam.from_linen(Net(nn.jit(Block)))

    @jax.jit
    @jax.vmap
    def both(image):
        activations, head = jaxcam.split(apply_fn, "one")(NET_VARIABLES, image)
        return activations, head(activations)

    activations, logits = both(images)
    truth = captured(Net(), NET_VARIABLES, images[1])["one"][0]
    chex.assert_trees_all_close(activations[1], truth, atol=1e-6)
    chex.assert_trees_all_close(logits, Net().apply(NET_VARIABLES, images), atol=1e-6)


def test_what_is_no_linen_module_is_refused():
    with pytest.raises(ValueError, match=r"from_linen got function; .* jaxcam\.from_nnx"):
        jaxcam.from_linen(lambda x: x)


def test_a_tag_inside_a_module_leaves_the_batch_axis_out():
    module = nn.Sequential(
        [lambda x: jaxcam.tag(nn.relu(x), "features"), lambda x: x.mean((1, 2)), nn.Dense(2)]
    )
    image = jax.random.normal(jax.random.key(0), (4, 5, 3))
    variables = module.init(jax.random.key(1), image[None])
    check_law(jaxcam.from_linen(module), variables, image, "features", nn.relu(image))
