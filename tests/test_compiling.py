"""The compiler option of CPUs, and where compiled programs are kept."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from tiers import rest_is_thorough

import jaxcam
from jaxcam._src import compiling


@pytest.fixture(autouse=True)
def ask_again():
    """What XLA knows is asked once in a process."""
    yield
    compiling.compiler_options.cache_clear()


def test_the_option_changes_no_number():
    model, image = jaxcam.digits_relu(), jaxcam.load_canvases().images[0]
    explain = jaxcam.explainer(model.apply_fn, "stage3")
    plain = jax.jit(explain)(model.variables, image)
    found = jax.jit(explain, compiler_options=jaxcam.compiler_options())(model.variables, image)
    np.testing.assert_allclose(found.heatmap, plain.heatmap, atol=1e-5)


def test_the_option_is_that_of_a_cpu(monkeypatch):
    wanted = jaxcam.CPU_COMPILER_OPTIONS if jax.default_backend() == "cpu" else {}
    assert jaxcam.compiler_options() == wanted
    compiling.compiler_options.cache_clear()
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert jaxcam.compiler_options() == {}


def test_an_option_that_xla_does_not_know_is_left_out(monkeypatch):
    compiling.compiler_options.cache_clear()
    monkeypatch.setattr(compiling, "CPU_COMPILER_OPTIONS", {"xla_cpu_no_such_option": "1"})
    assert jaxcam.compiler_options() == {}


@pytest.mark.parametrize(
    "chosen", rest_is_thorough(["JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME", "HOME"])
)
def test_programs_are_kept_where_the_user_says(tmp_path, chosen):
    places = {"XDG_CACHE_HOME": tmp_path / "jaxcam", "HOME": tmp_path / ".cache" / "jaxcam"}
    names = ("JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    code = "import jax; from jaxcam._src.compiling import keep_programs; keep_programs()"
    code += "; jax.jit(lambda x: x + 1)(1.0)"
    environment |= {chosen: str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)
    assert any(places.get(chosen, tmp_path).glob("jit_*"))


def _kept_in():
    return getattr(jax.config, "jax_compilation_cache_dir")  # noqa: B009 (made at run time)


@pytest.fixture
def own_cache(monkeypatch, tmp_path):
    """A folder of caches of a user who gave JAX none."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = _kept_in()
    yield tmp_path / "jaxcam"
    jax.config.update("jax_compilation_cache_dir", before)


def test_the_folder_of_programs_is_the_users_alone(own_cache):
    assert compiling.keep_programs() is None
    assert own_cache.stat().st_mode & 0o777 == 0o700
    assert _kept_in() == str(own_cache)


@pytest.mark.parametrize("rights", [0o777, 0o770, 0o702])
def test_no_program_of_a_stranger_is_run(own_cache, rights):
    own_cache.mkdir()
    own_cache.chmod(rights)
    assert "not yours alone" in str(compiling.keep_programs())
    assert _kept_in() != str(own_cache)


def test_without_a_place_for_programs_all_else_works(own_cache, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert "not kept" in str(compiling.keep_programs())
