"""What to say of a name that is not known."""

import difflib
from collections.abc import Iterable

_LISTED = 20


def no_such(kind: str, name: str, known: Iterable[str]) -> str:
    """Says that there is no such thing, which ones are near, and which there are."""
    known = list(dict.fromkeys(known))
    near = " or ".join(map(repr, difflib.get_close_matches(name, known, 3, 0.4)))
    hint = f" Did you mean {near}?" if near else ""
    more = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
    return f"there is no {kind} {name!r}.{hint} There are: {', '.join(known[:_LISTED])}{more}"
