"""Unmodified Keras 3 models: layers and operations found, named by path, and cut where they run."""

import functools
import threading

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import jax_defaults
from cut_law import check_gradient, check_law

import jaxcam

pytestmark = pytest.mark.thorough  # what every adapter must keep is in test_laws.py

keras = pytest.importorskip("keras", reason="the extra keras is not installed")
layers = keras.layers

IMAGE = jax.random.normal(jax.random.key(0), (6, 5, 3))
BATCH = IMAGE[None]


@pytest.fixture(autouse=True)
def _defaults():
    with jax_defaults():
        keras.backend.clear_session()  # counts the names of bare operations anew
        keras.utils.set_random_seed(0)
        yield


def functional():
    """A residual network with bare operations, with statistics and with dropout."""
    images = keras.Input((6, 5, 3), name="images")
    x = layers.Conv2D(4, 3, padding="same", activation="tanh", name="conv1")(images)
    y = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 1, name="conv2")(x))
    y = layers.Dropout(0.5, name="dropout")(keras.ops.tanh(y))
    x = keras.ops.mean(x + y, axis=(1, 2))
    return keras.Model(images, layers.Dense(3, name="out")(x))


FUNCTIONAL_LAYERS = ["conv1", "conv2", "norm", "tanh", "dropout", "add", "mean", "out"]


def sequential():
    return keras.Sequential(
        [
            keras.Input((6, 5, 3)),
            layers.Conv2D(4, 3, activation="tanh", name="conv"),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(3, name="out"),
        ]
    )


def nested():
    """A functional model in another, with a sequential one in it."""
    images = keras.Input((6, 5, 3))
    block = keras.Sequential(
        [layers.Conv2D(4, 1, name="inner"), layers.ReLU(name="relu")], name="block"
    )
    x = block(layers.Conv2D(4, 3, name="conv1")(images))
    backbone = keras.Model(images, x, name="backbone")
    images = keras.Input((6, 5, 3))
    x = layers.GlobalAveragePooling2D(name="pool")(backbone(images))
    return keras.Model(images, layers.Dense(3, name="out")(x))


class Block(layers.Layer):
    """A layer of layers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(4, 3, padding="same", name="conv")

    def call(self, x):
        return keras.ops.tanh(self.conv(x))


class Net(keras.Model):
    """A subclassed model, which is built by being called."""

    def __init__(self):
        super().__init__()
        self.blocks = [Block(name="one"), Block(name="two")]
        self.out = layers.Dense(3, name="out")

    def features(self, x):
        for block in self.blocks:
            x = block(x)
        return x

    def call(self, x):
        return self.out(keras.ops.mean(self.features(x), axis=(1, 2)))


def subclassed():
    model = Net()
    model(BATCH)
    return model


def names(apply_fn, variables, image=IMAGE):
    return [layer.name for layer in jaxcam.layers(apply_fn, variables, image)]


def truth(model, output, batch=BATCH):
    """What Keras itself computes up to a symbolic tensor."""
    (image,) = model.inputs
    return keras.Model(image, output)(batch, training=False)[0]


def has_tags(fn, *args):
    return "jaxcam_tag" in str(jax.make_jaxpr(fn)(*args))


# Where layers are


@pytest.mark.parametrize("layer", FUNCTIONAL_LAYERS)
def test_law_at_every_layer_and_operation_of_a_functional_model(layer):
    model = functional()
    apply_fn, variables = jaxcam.from_keras(model)
    assert names(apply_fn, variables) == FUNCTIONAL_LAYERS
    (operation,) = (each for each in model.operations if each.name == layer)
    wanted = truth(model, operation.output)
    activations, head = check_law(apply_fn, variables, IMAGE, layer, wanted)
    if layer == "dropout":
        pooled = truth(model, model.get_layer("conv1").output) + activations
        out = model.get_layer("out")
        check_gradient(activations, head, lambda d: out((pooled + d).mean((0, 1))[None])[0])


def test_law_in_a_sequential_model():
    model = sequential()
    apply_fn, variables = jaxcam.from_keras(model)
    assert names(apply_fn, variables) == ["conv", "pool", "out"]
    check_law(apply_fn, variables, IMAGE, "conv", truth(model, model.layers[0].output))


def test_law_in_nested_models_by_path():
    model = nested()
    apply_fn, variables = jaxcam.from_keras(model)
    inner = ["backbone/conv1", "backbone/block/inner", "backbone/block/relu", "backbone/block"]
    assert names(apply_fn, variables) == [*inner, "backbone", "pool", "out"]
    backbone = model.get_layer("backbone")
    for layer in ("conv1", "block"):
        wanted = truth(backbone, backbone.get_layer(layer).output)
        check_law(apply_fn, variables, IMAGE, f"backbone/{layer}", wanted)
    check_law(apply_fn, variables, IMAGE, "backbone", backbone(BATCH)[0])


def test_law_in_a_subclassed_model():
    model = subclassed()
    apply_fn, variables = jaxcam.from_keras(model)
    assert names(apply_fn, variables) == ["one/conv", "one", "two/conv", "two", "out"]
    first = model.blocks[0](BATCH)
    check_law(apply_fn, variables, IMAGE, "one", first[0])
    check_law(apply_fn, variables, IMAGE, "two/conv", model.blocks[1].conv(first)[0])
    check_law(apply_fn, variables, IMAGE, "two", model.features(BATCH)[0])


def test_law_in_the_runs_of_a_shared_layer():
    images = keras.Input((6, 5, 3))
    shared = keras.Sequential([layers.Conv2D(3, 1, activation="tanh", name="conv")], name="shared")
    runs = [first := shared(images), shared(first)]
    x = layers.GlobalAveragePooling2D()(runs[1] + first)
    model = keras.Model(images, layers.Dense(3, name="out")(x))
    apply_fn, variables = jaxcam.from_keras(model)
    for layer in ("shared", "shared/conv"):
        for occurrence, output in enumerate(runs):
            wanted = truth(model, output)
            check_law(apply_fn, variables, IMAGE, layer, wanted, occurrence=occurrence)
    with pytest.raises(ValueError, match="runs 2 times"):
        jaxcam.split(apply_fn, "shared")(variables, IMAGE)


def test_law_in_loops_over_time_and_behind_masks():
    frames = keras.Input((4, 6, 5, 3))
    each = layers.TimeDistributed(layers.Conv2D(2, 3, name="conv"), name="each")(frames)
    steps = keras.Input((4, 24))  # the mask must leave this model too
    masked = layers.Dense(3, name="dense")(layers.Masking(name="masking")(steps))
    inner = keras.Model(steps, masked, name="inner")(layers.Reshape((4, 24))(layers.ReLU()(each)))
    lstm = layers.LSTM(3, return_sequences=True, name="lstm")(inner)
    model = keras.Model(frames, layers.Dense(3)(layers.GlobalAveragePooling1D()(lstm)))
    video = jax.random.normal(jax.random.key(1), (4, 6, 5, 3)).at[2:].set(0)
    apply_fn, variables = jaxcam.from_keras(model)
    np.testing.assert_allclose(apply_fn(variables, video), model(video[None])[0], rtol=1e-6)
    for layer, output in {"each": each, "inner": inner, "lstm": lstm}.items():
        check_law(apply_fn, variables, video, layer, truth(model, output, video[None]))
    listed = {layer.name: layer.runs for layer in jaxcam.layers(apply_fn, variables, video)}
    assert listed["inner/masking"] == 1


@pytest.mark.skipif(not hasattr(keras, "RematScope"), reason="this Keras has no RematScope")
@pytest.mark.parametrize("mode", ["full", "activations"])
def test_law_under_rematerialization_and_where_jit_has_seen_the_model_before(mode):
    with keras.RematScope(mode):
        model = subclassed()
    model.compile("sgd", "mse", jit_compile=True)
    model.predict(np.asarray(BATCH), verbose=0)
    plain = jax.jit(lambda x: model(x))(BATCH)
    apply_fn, variables = jaxcam.from_keras(model)
    for transformed in (apply_fn, jax.jit(apply_fn), jax.checkpoint(apply_fn)):
        assert names(transformed, variables) == ["one/conv", "one", "two/conv", "two", "out"]
        np.testing.assert_allclose(transformed(variables, IMAGE), plain[0], rtol=1e-6, atol=1e-7)
        check_law(transformed, variables, IMAGE, "two", model.features(BATCH)[0])
    assert not has_tags(model, BATCH)


class Jitting(layers.Layer):
    """Calls a layer of its own by a function that JAX may have traced elsewhere."""

    def __init__(self, layer, jitted, **kwargs):
        super().__init__(**kwargs)
        self.layer, self.jitted = layer, jitted

    def call(self, x):
        return self.jitted(x)


def test_a_function_that_is_jitted_in_two_layers_is_tagged_in_both():
    relu = layers.ReLU(name="relu")
    jitted = jax.jit(lambda x: relu(x))
    images = keras.Input((6, 5, 3))
    conv = layers.Conv2D(3, 1)(first := Jitting(relu, jitted, name="first")(images))
    second = Jitting(relu, jitted, name="second")(conv)
    x = layers.Dense(3)(layers.GlobalAveragePooling2D()(second))
    model = keras.Model(images, x)
    jax.jit(lambda x: model(x))(BATCH)
    apply_fn, variables = jaxcam.from_keras(model)
    check_law(apply_fn, variables, IMAGE, "first/relu", truth(model, first))
    check_law(apply_fn, variables, IMAGE, "second/relu", truth(model, second))


# What a model needs and returns


def test_statistics_and_seeds_are_variables_and_gradients_reach_the_weights():
    model = functional()
    apply_fn, variables = jaxcam.from_keras(model)
    kept = {v.path.split("/")[-1] for v in model.non_trainable_variables}
    assert kept == {"moving_mean", "moving_variance", "seed_generator_state"}
    moved = jax.tree.map(lambda x: x + 1, variables)
    wanted, _ = model.stateless_call(*(moved[k] for k in ("trainable", "non_trainable")), BATCH)
    np.testing.assert_allclose(apply_fn(moved, IMAGE), wanted[0], rtol=1e-6)
    assert not np.allclose(apply_fn(moved, IMAGE), apply_fn(variables, IMAGE))

    def loss(trainable):
        explain = jaxcam.explainer(apply_fn, "add")
        return explain({**variables, "trainable": trainable}, IMAGE, 1).cam.sum()

    gradients = jax.jit(jax.grad(loss))(variables["trainable"])
    chex.assert_tree_all_finite(gradients)
    assert np.abs(gradients[0]).max() > 0
    chex.assert_trees_all_equal(variables, jaxcam.from_keras(model)[1])


def test_random_layers_are_still_in_evaluation_and_follow_their_seeds_in_training():
    augmented = keras.Sequential(
        [
            keras.Input((6, 5, 3)),
            layers.Rescaling(0.5),
            layers.RandomFlip(seed=1),
            layers.RandomTranslation(0.2, 0.2, seed=1),
            layers.GaussianNoise(0.5, seed=1, name="noise"),
            *sequential().layers,
        ]
    )
    apply_fn, variables = jaxcam.from_keras(augmented)
    check_law(apply_fn, variables, IMAGE, "noise", IMAGE / 2)
    random_fn, _ = jaxcam.from_keras(augmented, training=True)
    other = {**variables, "non_trainable": [seed + 1 for seed in variables["non_trainable"]]}
    first, again, third = (jax.jit(random_fn)(v, IMAGE) for v in (variables, variables, other))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, third)


def test_law_in_reduced_precision():
    policy = keras.DTypePolicy("mixed_bfloat16")
    images = keras.Input((6, 5, 3))
    conv = layers.Conv2D(4, 3, dtype=policy, name="conv")(images)
    x = layers.BatchNormalization(dtype=policy)(conv)
    x = layers.GlobalAveragePooling2D(dtype=policy)(x)
    x = layers.Dense(3, dtype="float32", activation="softmax")(x)
    model = keras.Model(images, x)
    apply_fn, variables = jaxcam.from_keras(model)
    activations, head = jaxcam.split(apply_fn, "conv")(variables, IMAGE)
    assert activations.dtype == jnp.bfloat16
    np.testing.assert_array_equal(activations, truth(model, conv))
    np.testing.assert_array_equal(head(activations), model(BATCH)[0])
    explain = jax.jit(jaxcam.explainer(jaxcam.to_logits(apply_fn), "conv"))
    assert explain(variables, IMAGE).cam.dtype == jnp.float32


@pytest.mark.parametrize("by", ["layers", "argument"])
def test_channels_first_are_seen_last(by):
    order = {"data_format": "channels_first"}
    images = keras.Input((3, 6, 5))
    conv = layers.Conv2D(4, 3, activation="tanh", name="conv", **order)(images)
    tokens = layers.Reshape((4, -1))(conv)
    tokens = layers.Permute((2, 1), name="tokens")(tokens)
    last = {} if by == "layers" else {"data_format": "channels_last"}
    x = layers.GlobalAveragePooling1D(**last)(tokens) if last else keras.ops.mean(tokens, 1)
    model = keras.Model(images, layers.Dense(3)(x))
    batch = jnp.moveaxis(BATCH, -1, 1)
    if last:
        with pytest.raises(ValueError, match=r'"channels_first" and of "channels_last"; say which'):
            jaxcam.from_keras(model)
    apply_fn, variables = jaxcam.from_keras(model, channels="first" if last else None)
    np.testing.assert_allclose(apply_fn(variables, IMAGE), model(batch)[0], rtol=1e-6)
    wanted = jnp.moveaxis(truth(model, conv, batch), 0, -1)
    check_law(apply_fn, variables, IMAGE, "conv", wanted)
    check_law(apply_fn, variables, IMAGE, "tokens", wanted.reshape(12, 4))


def test_other_inputs_are_arguments():
    inputs = {
        "images": keras.Input((6, 5, 3), name="images"),
        "scale": keras.Input((1,), name="scale"),
    }
    conv = layers.Conv2D(4, 3, activation="tanh", name="conv")(inputs["images"])
    x = layers.GlobalAveragePooling2D()(conv) * inputs["scale"]
    model = keras.Model(inputs, {"logits": layers.Dense(3, use_bias=False)(x), "scaled": x})
    apply_fn, variables = jaxcam.from_keras(
        model,
        inputs_fn=lambda images, scale: {"images": images, "scale": scale.reshape(1, 1)},
        output_fn=lambda output: output["logits"],
    )
    explain = jaxcam.explainer(apply_fn, "conv")
    scales = jnp.array([2.0, -1.0])
    found = jax.jit(jax.vmap(explain, ((None, 0), None, None)))((variables, scales), IMAGE, 0)
    np.testing.assert_allclose(found.weights[0], -2 * found.weights[1], rtol=1e-5)


@pytest.mark.parametrize("by", ["activation", "layer"])
def test_the_logits_before_a_softmax_or_a_sigmoid(by):
    end = {
        "activation": [layers.Dense(3, activation="softmax")],
        "layer": [layers.Dense(3), layers.Activation("sigmoid")],
    }
    model = keras.Sequential([*subclassed().blocks, layers.GlobalAveragePooling2D(), *end[by]])
    probabilities = model(BATCH)[0]
    apply_fn, variables = jaxcam.from_keras(model)
    logits_fn = jaxcam.to_logits(apply_fn)
    squash = {"activation": jax.nn.softmax, "layer": jax.nn.sigmoid}[by]
    np.testing.assert_allclose(squash(logits_fn(variables, IMAGE)), probabilities, rtol=1e-6)
    with pytest.warns(jaxcam.ModelWarning, match="jaxcam.to_logits"):
        jaxcam.explainer(apply_fn, "two")(variables, IMAGE)
    jaxcam.explainer(logits_fn, "two")(variables, IMAGE)
    np.testing.assert_array_equal(model(BATCH)[0], probabilities)


@pytest.mark.parametrize(
    ("application", "size", "layer"),
    [
        (functools.partial(keras.applications.MobileNetV2, alpha=0.35), 64, "out_relu"),
        (functools.partial(keras.applications.MobileNet, alpha=0.25), 64, "conv_pw_13_relu"),
    ],
)
def test_law_in_networks_of_keras(application, size, layer):
    model = application(weights=None, input_shape=(size, size, 3), classes=10)
    image = jax.random.normal(jax.random.key(0), (size, size, 3))
    apply_fn, variables = jaxcam.from_keras(model)
    logits_fn = jaxcam.to_logits(apply_fn)
    assert names(logits_fn, variables, image) == [each.name for each in model.operations[1:]]

    @jax.jit
    def explained(variables, image):
        activations, head = jaxcam.split(apply_fn, layer)(variables, image)
        explanation = jaxcam.explainer(logits_fn, layer)(variables, image)
        return explanation, head(activations), model(image[None])[0]

    explanation, probabilities, wanted = explained(variables, image)
    np.testing.assert_allclose(probabilities, wanted, rtol=1e-6)
    np.testing.assert_allclose(jax.nn.softmax(explanation.logits), wanted, rtol=1e-6)
    assert explanation.heatmap.max() == 1


# Who must not notice


def test_the_model_and_keras_stay_as_they_are():
    before = keras.Operation.__call__
    model = functional()
    config, values = model.get_config(), [np.asarray(v) for v in model.variables]
    apply_fn, variables = jaxcam.from_keras(model)
    assert has_tags(apply_fn, variables, IMAGE)
    with pytest.raises(ValueError, match="incompatible"):
        apply_fn(variables, IMAGE[:2])
    assert keras.Operation.__call__ is before
    assert not has_tags(model, BATCH)
    assert model.get_config() == config
    chex.assert_trees_all_equal(values, [np.asarray(v) for v in model.variables])


def calling(fn):
    """A model of one image that calls a function in the middle of its trace."""

    class Calling(layers.Layer):
        def call(self, x):
            fn()
            return x

    images = keras.Input((6, 5, 3))
    x = layers.GlobalAveragePooling2D(name="pool")(layers.Conv2D(4, 3, name="conv")(images))
    model = keras.Model(images, layers.Dense(3, name="out")(Calling(name="calling")(x)))
    return jaxcam.from_keras(model)


def in_thread(fn):
    """Starts a thread; what it returns is the one entry of the list that it comes with."""
    found = []

    def run():
        with jax_defaults():  # which are of a thread
            found.append(fn())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, found


def test_a_call_in_another_thread_during_a_trace_is_untouched():
    other, programs = sequential(), []

    def trace_elsewhere():
        thread, found = in_thread(lambda: jax.make_jaxpr(other)(BATCH))
        thread.join(60)
        programs.extend(found)

    apply_fn, variables = calling(trace_elsewhere)
    programs.clear()  # of what ran while the model was made
    assert names(apply_fn, variables) == ["conv", "pool", "calling", "out"]
    assert len(programs) == 1
    assert "jaxcam_tag" not in str(programs)


def test_traces_in_two_threads_keep_their_own_names():
    before, meeting, meet = keras.Operation.__call__, threading.Barrier(2), threading.Event()
    cases = [calling(lambda: meet.is_set() and meeting.wait(60)) for _ in range(2)]
    meet.set()
    thread, found = in_thread(lambda: names(*cases[1]))
    assert names(*cases[0]) == ["conv", "pool", "calling", "out"]
    thread.join(60)
    assert found == [["conv", "pool", "calling", "out"]]
    assert keras.Operation.__call__ is before


def test_a_trace_within_a_trace():
    inner, found = jaxcam.from_keras(sequential()), []
    outer = calling(lambda: found.append(names(*inner)))
    found.clear()
    assert names(*outer) == ["conv", "pool", "calling", "out"]
    assert found == [["conv", "pool", "out"]]


# What does not fit


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda x: x, "from_keras got function; wanted a keras.Model"),
        (jaxcam.digits_relu(), "from_keras got Model; wanted a keras.Model"),
    ],
)
def test_what_is_no_keras_model_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        jaxcam.from_keras(given)


class Careless(Net):
    """Says that it is built while its layers are not."""

    def build(self, input_shape):
        self.built = True


def test_a_model_without_variables_is_refused_with_the_fix():
    careless = Careless()
    careless.build(BATCH.shape)
    for model in (Net(), careless, keras.Sequential([layers.Dense(3)])):
        with pytest.raises(ValueError, match=r"is not built, .* call it on one batch first: model"):
            jaxcam.from_keras(model)
        model(BATCH)
        apply_fn, variables = jaxcam.from_keras(model)
        np.testing.assert_array_equal(apply_fn(variables, IMAGE), model(BATCH)[0])


def test_another_backend_is_refused_with_the_fix(monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "torch")
    with pytest.raises(ValueError, match=r"runs on torch; set .*KERAS_BACKEND=jax before"):
        jaxcam.from_keras(sequential())


def test_variables_and_arguments_that_do_not_fit_are_refused_in_one_line():
    model = sequential()
    apply_fn, variables = jaxcam.from_keras(model)
    trainable = variables["trainable"]
    subclassed_fn, own = jaxcam.from_keras(subclassed(), scale=2.0)
    for fn, given, message in [
        (apply_fn, trainable, r"is a list of 4 arrays; wanted .*4 trainable and 0 non_trainable"),
        (apply_fn, {**variables, "trainable": trainable[1:]}, r"a dict of 3 arrays; wanted"),
        (
            apply_fn,
            {**variables, "trainable": trainable[::-1]},
            r"array \[3\] for '\w+/conv/kernel'",
        ),
        (subclassed_fn, own, r"Net.call.*'scale'.*given to from_keras, .*inputs_fn="),
    ]:
        with pytest.raises(ValueError, match=message) as error:
            fn(given, IMAGE)
        assert "\n" not in str(error.value)
    for shape in [(12, 8, 7), (12, 8), (1, *IMAGE.shape)]:
        with pytest.raises(ValueError, match=r"does not run on the image float32\[") as error:
            jaxcam.layers(apply_fn, variables, jnp.ones(shape))
        assert str(error.value).isprintable()
    with pytest.raises(ValueError, match=r"channels= 'frist'"):
        jaxcam.from_keras(model, channels="frist")


def test_logits_in_place_of_the_softmax():
    model = sequential()
    ended = keras.Sequential([keras.Input((6, 5, 3)), *model.layers, layers.Softmax()])
    wanted_fn, variables = jaxcam.from_keras(model)
    apply_fn, _ = jaxcam.from_keras(ended, logits=True)
    chex.assert_trees_all_close(apply_fn(variables, IMAGE), wanted_fn(variables, IMAGE), rtol=1e-6)
