"""The bundled canvases and networks, and the script that trained them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import rest_is_thorough

import jaxcam
from jaxcam._src.demo import bundle, canvases, train

MODELS = {"relu": jaxcam.digits_relu, "silu": jaxcam.digits_silu, "vit": jaxcam.digits_vit}


@pytest.fixture(scope="module")
def digits():
    return canvases.load_digits()


def test_a_canvas_is_one_whole_digit_and_pieces_outside_its_box(digits):
    drawn = canvases.draw(digits[0], 30, seed=5)
    assert drawn.images.shape == (30, 64, 64, 1)
    for image, box in zip(drawn.images[..., 0], drawn.boxes, strict=True):
        assert 0 <= image.min() < image.max() <= 1
        inside = box.mask()
        assert inside.sum() == (box.bottom - box.top) * (box.right - box.left)
        assert image[inside].max() > 0.5
        assert image[~inside].max() > 0.5


def test_the_same_seed_draws_the_same_canvases(digits):
    first, again, other = (canvases.draw(digits[0], 5, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.images, again.images)
    assert first.boxes == again.boxes
    assert not np.array_equal(first.images, other.images)


def test_no_digit_is_both_trained_on_and_tested(digits):
    known, unseen = ({image.tobytes() for image in part.images} for part in digits)
    assert (len(known), len(unseen)) == (1437, 360)
    assert not known & unseen


@pytest.mark.parametrize("name", rest_is_thorough(MODELS))
def test_shipped_weights_recognise_fresh_canvases(digits, name):
    fresh = canvases.draw(digits[1], 1000, seed=77)
    variables = bundle.load_variables(name)
    assert train.accuracy(train.RECIPES[name].module, variables, fresh) > 0.97


@pytest.mark.parametrize("name", MODELS)
def test_bundled_models_name_the_bundled_canvases(name):
    model, shown = MODELS[name](), jaxcam.load_canvases()
    assert sum(x.size for x in jax.tree.leaves(model.variables["params"])) < 300_000
    of_all = jax.jit(jax.vmap(model.apply_fn, in_axes=(None, 0)))
    logits = of_all(model.variables, jnp.asarray(shown.images))
    assert (logits.argmax(-1) == shown.labels).mean() > 0.9


def test_shipped_files_are_small():
    sizes = [(bundle.FOLDER / f"{name}.msgpack").stat().st_size for name in MODELS]
    assert max(sizes) < 500_000


def test_the_grid_is_what_enters_the_last_block():
    model, image = jaxcam.digits_vit(), jnp.asarray(jaxcam.load_canvases().images[0])
    grid, _ = jaxcam.split(model.apply_fn, "grid")(model.variables, image)
    tokens, _ = jaxcam.token_grid(model.apply_fn, "block2")(model.variables, image)
    assert grid.shape == (8, 8, 48)
    np.testing.assert_array_equal(grid, tokens)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["relu", "vit"])
def test_a_few_steps_teach_something_and_repeat_themselves(digits, name):
    few = canvases.draw(digits[0], 64, seed=0)
    recipe = train.RECIPES[name]._replace(steps=20, batch=16)

    def loss(variables):
        logits, _ = recipe.module.apply(
            variables, jnp.asarray(few.images), train=True, mutable=["batch_stats"]
        )
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(64), few.labels])

    untrained = recipe.module.init(jax.random.key(0), jnp.asarray(few.images), train=False)
    with jax.numpy_dtype_promotion("standard"):  # optax's schedules mix integers and floats
        trained, again = (train.train(recipe, digits[0]) for _ in range(2))
    assert loss(trained) < loss(untrained)
    for first, second in zip(jax.tree.leaves(trained), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(first, second)


def test_canvases_survive_writing_and_reading(digits, tmp_path):
    drawn = canvases.draw(digits[1], 3, seed=9)
    bundle.save_canvases(tmp_path, drawn)
    read = bundle.load_canvases(tmp_path)
    np.testing.assert_allclose(read.images, drawn.images, atol=0.5 / 255 + 1e-6)
    assert (read.labels == drawn.labels).all()
    assert read.boxes == drawn.boxes
