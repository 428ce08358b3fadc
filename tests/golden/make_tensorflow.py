"""Writes the golden files of the TensorFlow libraries.

In a virtual environment of its own:

    pip install tensorflow==2.20.0 tf-keras-vis==0.8.7 xplique==2.0.2
    python tests/golden/make_tensorflow.py
"""

from importlib.metadata import version

import numpy as np
import tensorflow as tf
from networks import CLASSES, LAYERS, NETWORKS, SHAPE, TARGETS, images, save, weights

layers = tf.keras.layers


def network(name: str) -> tf.keras.Model:
    """The same network in Keras; see networks.py. It returns logits."""
    w, pooled = weights(name), name == "pooled"
    activation = "relu" if pooled else "silu"
    inputs = x = tf.keras.Input(SHAPE[1:])
    x = layers.Conv2D(6, 3, strides=2, name="conv1")(layers.ZeroPadding2D(1)(x))
    x = layers.Activation(activation, name="layer1")(x)
    x = x if pooled else layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(8, 3, name="conv2")(layers.ZeroPadding2D(1)(x))
    x = layers.Activation(activation, name="layer2")(x)
    x = (layers.GlobalAveragePooling2D() if pooled else layers.Flatten())(x)
    model = tf.keras.Model(inputs, layers.Dense(CLASSES, name="classifier")(x))
    for n in (1, 2):
        model.get_layer(f"conv{n}").set_weights([w[f"conv{n}"], w[f"bias{n}"]])
    model.get_layer("classifier").set_weights([w["kernel"], w["bias"]])
    return model


def tf_keras_vis(model: tf.keras.Model, x: np.ndarray) -> dict[str, np.ndarray]:
    from tf_keras_vis.gradcam import Gradcam
    from tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus
    from tf_keras_vis.layercam import Layercam
    from tf_keras_vis.scorecam import Scorecam
    from tf_keras_vis.utils.scores import CategoricalScore

    methods = {
        "grad_cam": Gradcam,
        "grad_cam_plus_plus": GradcamPlusPlus,
        "layer_cam": Layercam,
        "score_cam": Scorecam,
    }
    at = {"seek_penultimate_conv_layer": False}
    return {
        f"{layer}/{name}": np.asarray(
            method(model)(CategoricalScore(TARGETS), x, penultimate_layer=layer, **at), np.float32
        )
        for layer in LAYERS
        for name, method in methods.items()
    }


def xplique(model: tf.keras.Model, x: np.ndarray) -> dict[str, np.ndarray]:
    from xplique.attributions import FEM, GradCAM, GradCAMPP

    targets = np.eye(CLASSES, dtype=np.float32)[TARGETS]
    found = {}
    for layer in LAYERS:
        for name, method in {"grad_cam": GradCAM, "grad_cam_plus_plus": GradCAMPP}.items():
            maps = method(model, conv_layer=layer)(x, targets)
            found[f"{layer}/{name}"] = np.asarray(maps)[..., 0]
        found[f"{layer}/fem"] = np.asarray(FEM(model, conv_layer=layer)(x, targets))[..., 0]
    return found


LIBRARIES = {"tf_keras_vis": (tf_keras_vis, "tf-keras-vis"), "xplique": (xplique, "xplique")}

if __name__ == "__main__":
    for name, (run, package) in LIBRARIES.items():
        for kind in NETWORKS:
            model = network(kind)
            found = {"logits": np.asarray(model(images())), **run(model, images())}
            versions = f"{package} {version(package)}, tensorflow {tf.__version__}"
            save(name, kind, f"{versions}, keras {tf.keras.__version__}", found)
