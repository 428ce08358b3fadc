"""Flax models of Hugging Face: the linen module inside of one is cut as it is."""

import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cut_law import filled

import jaxcam

hf = pytest.importorskip("transformers", reason="transformers is not installed")
if not hasattr(hf, "FlaxResNetForImageClassification"):
    pytest.skip("transformers has no Flax models since 5.0", allow_module_level=True)

IMAGE = jax.random.normal(jax.random.key(0), (16, 16, 3))
FIRST_ORDER = jaxcam.grad_cam, jaxcam.layer_cam, jaxcam.score_cam
METHODS = *FIRST_ORDER, jaxcam.grad_cam_plus_plus
SMALL = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 16,
    "patch_size": 4,
}


@pytest.fixture(autouse=True)
def _without_strict_shapes():
    """The models add biases and embeddings of fewer axes."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def resnet():
    """A model and its variables, random and without a download."""
    config = hf.ResNetConfig(
        embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", num_labels=3
    )
    model = hf.FlaxResNetForImageClassification(config, (1, *IMAGE.shape), _do_init=False)
    variables = filled(model.params_shape_tree)
    return model, {**variables, "batch_stats": jax.tree.map(abs, variables["batch_stats"])}


def vit():
    config = hf.ViTConfig(**SMALL, num_labels=3)
    model = hf.FlaxViTForImageClassification(config, (1, *IMAGE.shape), _do_init=False)
    return model, {"params": filled(model.params_shape_tree)}


def clip():
    pictures = {**SMALL, "num_hidden_layers": 1}
    texts = {**pictures, "vocab_size": 9, "max_position_embeddings": 6}
    config = hf.CLIPConfig(text_config=texts, vision_config=pictures, projection_dim=8)
    shapes = (1, 5), (1, *IMAGE.shape)
    model = hf.FlaxCLIPModel(config, shapes, _do_init=False)
    return model, {"params": filled(model.params_shape_tree)}


def logits_of(output):
    return output.logits


def check_cut(apply_fn, variables, layer, truth):
    """The law of the cut, compiled: equation by equation these models take long."""

    @jax.jit
    def run(variables, image):
        activations, head = jaxcam.split(apply_fn, layer)(variables, image)
        heads = head(activations), head(jnp.zeros_like(activations))
        return activations, *heads, apply_fn(variables, image)

    activations, logits, changed, wanted = run(variables, IMAGE)
    # Loose: the model that made the truth is compiled apart.
    chex.assert_trees_all_close(activations, truth, rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_close(logits, wanted, rtol=1e-6, atol=1e-6)
    assert not np.allclose(changed, logits, atol=1e-3)


def check_refused(apply_fn, layer, variables, message, **options):
    explain = jaxcam.explainer(apply_fn, layer, **options)
    with pytest.raises(ValueError, match=message) as error:
        jax.eval_shape(explain, variables, IMAGE, 1)
    assert "\n" not in str(error.value)


def check_maps(apply_fn, layer, variables, methods=METHODS):
    for method in methods:
        explain = jax.jit(jaxcam.explainer(apply_fn, layer, method))
        explanation = explain(variables, IMAGE)
        assert explanation.heatmap.shape == IMAGE.shape[:2], method
        chex.assert_tree_all_finite(explanation)
        np.testing.assert_allclose(explanation.heatmap.max(), 1, rtol=1e-6)


def test_a_resnet():
    model, variables = resnet()
    apply_fn = jaxcam.from_linen(model.module, output_fn=logits_of)
    found = {layer.name: layer.shape for layer in jaxcam.layers(apply_fn, variables, IMAGE)}
    assert len(found) == 34
    layer = "resnet/encoder/stages/1"
    assert found[layer] == (2, 2, 8)
    # The model takes channels first, and the module inside last.
    output = model(jnp.moveaxis(IMAGE, -1, 0)[None], variables, output_hidden_states=True)
    truth = jnp.moveaxis(output.hidden_states[-1][0], 0, -1)
    check_cut(apply_fn, variables, layer, truth)
    check_maps(apply_fn, layer, variables)


def test_a_vit():
    model, variables = vit()
    apply_fn = jaxcam.from_linen(model.module, output_fn=logits_of)
    assert len(jaxcam.layers(apply_fn, variables, IMAGE)) == 41
    params = variables["params"]
    output = model(jnp.moveaxis(IMAGE, -1, 0)[None], params, output_hidden_states=True)
    layer = "vit/encoder/layer/0"
    check_cut(apply_fn, variables, layer, output.hidden_states[1][0])
    check_maps(apply_fn, jaxcam.token_grid(apply_fn, layer), variables)
    message = r"jaxcam.token_grid\(apply_fn, 'vit/encoder/layer/0'\)"
    check_refused(apply_fn, layer, variables, message)


def test_the_similarity_of_an_image_to_texts():
    model, variables = clip()
    apply_fn = jaxcam.from_linen(
        model.module,
        inputs_fn=lambda images, text: (text["ids"], images, text["mask"], text["places"]),
        output_fn=lambda output: output.logits_per_image,
    )
    ids = jnp.array([[1, 4, 2, 7, 8], [1, 3, 5, 6, 8]])
    text = {"ids": ids, "mask": jnp.ones_like(ids), "places": jnp.arange(5)[None].repeat(2, 0)}
    given = variables, text
    pixels = jnp.moveaxis(IMAGE, -1, 0)[None]
    output = model(ids, pixels, params=variables["params"], output_hidden_states=True)
    logits = jax.jit(apply_fn)(given, IMAGE)
    chex.assert_trees_all_close(logits, output.logits_per_image[0], rtol=1e-5)
    layer = "vision_model/pre_layrnorm"
    check_cut(apply_fn, given, layer, output.vision_model_output.hidden_states[0][0])
    # Without exact derivatives: types checked, the search for their structure takes half a minute.
    check_maps(apply_fn, jaxcam.token_grid(apply_fn, layer), given, FIRST_ORDER)
    other = "text_model/encoder/layers/0/layer_norm1"
    check_refused(apply_fn, other, given, "layer 'text.* does not depend on the image")


def test_what_is_no_vector_of_logits_is_refused_in_one_line():
    model, variables = resnet()
    apply_fn = jaxcam.from_linen(model.module)
    logit = inspect.unwrap(jaxcam.logit)  # in the tests alone, a type says it before
    message = r"returned FlaxImage\w+ \{'logits': \(3,\)\}; .*output_fn=, such as .*output.logits"
    check_refused(apply_fn, "resnet/embedder", variables, message, score_fn=logit)
    with pytest.raises(ValueError, match=r"got FlaxResNet.*from_linen\(model.module, output_fn="):
        jaxcam.from_linen(model)
