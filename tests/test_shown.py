"""How records look in a notebook."""

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import plain
from PIL import Image

import jaxcam
from jaxcam._src import shown

IMAGE = re.compile(r'src="data:image/png;base64,([^"]+)"')
HOSTILE = "<img src=x onerror='alert(1)'>&\""


def _pictures(page: str) -> list[np.ndarray]:
    files = [base64.b64decode(found) for found in IMAGE.findall(page)]
    return [np.asarray(Image.open(io.BytesIO(file))) for file in files]


def _tags(page: str) -> list[str]:
    """The tags of a page, each of which must be closed."""
    opened: list[str] = []
    tags: list[str] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag, attrs):
            del attrs
            tags.append(tag)
            if tag not in {"br", "img"}:
                opened.append(tag)

        def handle_endtag(self, tag):
            assert opened.pop() == tag

    Parser().feed(page)
    assert not opened
    return tags


def _explanation(spatial: int = 2, images: int = 0) -> jaxcam.Explanation:
    case = plain(spatial)
    explain = jaxcam.explainer(case.apply_fn, case.layer)
    if not images:
        return jax.jit(explain)(case.variables, case.image)
    many = jnp.stack([case.image] * images)
    return jax.jit(jax.vmap(explain, in_axes=(None, 0)))(case.variables, many)


def test_an_explanation_shows_its_heatmap_and_its_target():
    explanation = _explanation()
    page = explanation._repr_html_()
    (picture,) = _pictures(page)
    assert picture.shape == (*explanation.heatmap.shape, 3)
    brightest = np.unravel_index(np.argmax(explanation.heatmap), explanation.heatmap.shape)
    np.testing.assert_allclose(picture[brightest], shown._COLOURS[-1], atol=2)  # just below 1
    assert f"<th>target</th><td>{int(explanation.target)}</td>" in page
    assert _tags(page)[0] == "img"


@pytest.mark.parametrize(("spatial", "images", "pictures"), [(1, 0, 1), (3, 0, 4), (2, 3, 3)])
def test_signals_volumes_and_several_images_show_the_first_few(spatial, images, pictures):
    explanation = _explanation(spatial, images)
    page = explanation._repr_html_()
    assert len(_pictures(page)) == pictures
    targets = ", ".join(map(str, np.ravel(explanation.target)))
    assert f"<th>target</th><td>{targets}</td>" in page


def test_the_unknown_is_grey():
    (picture,) = _pictures("".join(shown.picture(jnp.array([[jnp.nan, 0.0]]))))
    np.testing.assert_array_equal(picture[0], [shown._UNKNOWN, shown._COLOURS[0]])


def test_what_is_no_array_is_shown_without_a_picture():
    pages = []

    @jax.jit
    def traced(explanation):
        pages.append(explanation._repr_html_())
        return explanation.heatmap

    traced(_explanation())
    shapes = jax.eval_shape(lambda: _explanation())
    pages += [shapes._repr_html_(), jax.tree.map(lambda _: None, _explanation())._repr_html_()]
    for page in pages:
        assert not _pictures(page)
        assert "table" in _tags(page)


def test_several_layers_are_shown_each():
    case = plain()
    explain = jaxcam.explainer(case.apply_fn, ["block1", "block2"])
    page = explain(case.variables, case.image)._repr_html_()
    assert "<td>0; 0</td>" in page
    assert len(_pictures(page)) == 1


def test_names_are_escaped():
    case = plain()
    explanation = dataclasses.replace(_explanation(), target=HOSTILE)
    layer = jaxcam.Layer(HOSTILE, (2, 2), np.dtype("float32"), 1)
    structure = dataclasses.replace(_structure(case), kind=HOSTILE, opaque=frozenset({HOSTILE}))
    for record in (explanation, layer, structure):
        page = record._repr_html_()
        assert "<img src=x" not in page
        assert set(_tags(page)) <= {"table", "tr", "th", "td", "p", "b", "img", "br", "span"}


def _structure(case) -> jaxcam.Structure:
    tap = jaxcam.tap(case.apply_fn, case.layer, case.variables, case.image)
    return jaxcam.structure(tap.score_activations, tap.activations)


def test_a_layer_and_a_structure_are_tables():
    case = plain()
    layer = jaxcam.layers(case.apply_fn, case.variables, case.image)[0]
    assert f"<th>name</th><td>{layer.name}</td>" in layer._repr_html_()
    structure = _structure(case)
    page = structure._repr_html_()
    assert str(structure) in page
    assert f"<td>{structure.size}</td>" in page
    _tags(page)


@pytest.mark.thorough
def test_an_audit_shows_its_verdict_its_numbers_and_its_maps():
    case = plain()
    audit = jaxcam.audit(case.apply_fn, case.layer, case.variables, case.image)
    page = audit._repr_html_()
    assert jaxcam.verdict(audit) == str(audit)
    assert str(audit) in page
    assert len(_pictures(page)) == len(audit.names)
    assert "<th>exact: near pole</th>" in page
    _tags(page)
    unknown = jax.tree.map(lambda _: "traced", audit)
    assert "not known" in unknown._repr_html_()
    assert "not known" in str(unknown)
