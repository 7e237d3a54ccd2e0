"""The one error class for what a user can put right, and the nearest valid name to offer."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """Something the user gave cannot be used; the message names the value, the place and the remedy."""


def unknown(kind: str, value: object, valid: Iterable[str], *, place: str) -> UserError:
    """Build the error for a name that does not exist.

    kind is the noun ("task"), value what was given, valid the names that exist (the first twenty are
    listed), place where the value stood (an option, a file and key).
    """
    names = list(valid)
    by_lower = {name.lower(): name for name in names}
    near = get_close_matches(str(value).lower(), by_lower, n=1, cutoff=0.5)
    guess = f" Did you mean '{by_lower[near[0]]}'?" if near else ""
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return UserError(f"unknown {kind} '{value}' in {place}.{guess} Valid: {shown}.")
