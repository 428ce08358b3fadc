"""Classes, as pairs of their number and their name."""

from collections.abc import Sequence


def told_apart(classes: Sequence[tuple[int, str]]) -> list[str]:
    """Their names, with a number where two classes share one."""
    names = [name for _, name in classes]
    return [f"{name} ({i})" if names.count(name) > 1 else name for i, name in classes]


def target_texts(classes: Sequence[tuple[int, str]]) -> list[str]:
    """What names a class as `--target`: its number, unless numbers are names here."""
    are_names = any(name.isdecimal() for _, name in classes)
    return [name if are_names else str(i) for i, name in classes]


def groups(own_class: Sequence[int | None]) -> dict[int, list[int]]:
    """The images of each class that has two or more: of one, the map is its mean."""
    found: dict[int, list[int]] = {}
    for i, own in enumerate(own_class):
        if own is not None:
            found.setdefault(own, []).append(i)
    return {own: members for own, members in sorted(found.items()) if len(members) > 1}
