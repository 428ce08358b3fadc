"""Packages that only a part of the library needs."""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
    """For imports inside: says which extra of the package to install where one is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or str(error)).partition(".")[0]
        raise ModuleNotFoundError(
            f"this part of jaxcam needs the package {package}: pip install 'jaxcam-xai[{name}]'",
            name=error.name,
        ) from error
