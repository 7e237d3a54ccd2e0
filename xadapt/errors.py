"""The one error class for what a user can put right, and the nearest valid name to offer."""

import reprlib
from collections.abc import Iterable
from difflib import get_close_matches

_LONGEST = 80  # characters of a value that a message shows


class UserError(ValueError):
    """Something the user gave cannot be used; the message names the value, the place and the remedy."""


def unknown(
    kind: str, value: object, valid: Iterable[str], *, place: str, guess: bool = True, remedy: str = ""
) -> UserError:
    """Build the error for a name that does not exist.

    kind is the noun ("task"), value what was given, valid the names that exist (the first twenty are
    listed), place where the value stood (an option, a file and key). The nearest name is offered, where one is near and
    it may be a guess; remedy is a sentence on what else may be done.
    """
    names = list(valid)
    by_lower = {name.lower(): name for name in names}
    given = str(value)
    given = given if len(given) <= _LONGEST else f"{given[: _LONGEST - 3]}..."
    # of two letters one is no nearness
    near = get_close_matches(given.lower(), by_lower, n=1, cutoff=0.5 if len(given) > 2 else 0.6) if guess else []
    said = f" Did you mean '{by_lower[near[0]]}'?" if near else ""
    said += f" {remedy}" if remedy else ""
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return UserError(f"unknown {kind} '{given}' in {place}.{said} {f'Valid: {shown}' if names else 'There is none'}.")


class _Short(reprlib.Repr):
    """Cuts what is long, also where small things stand in each other over and over."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother, self.maxlong = 3, _LONGEST, _LONGEST, _LONGEST

    def repr_int(self, x: int, level: int) -> str:
        return super().repr_int(x, level) if x.bit_length() < 1000 else f"<integer of {x.bit_length()} bits>"


def short(value: object) -> str:
    """A value as Python writes it, cut to what a message may show, however large it is."""
    shown = _Short().repr(value)
    return shown if len(shown) <= 2 * _LONGEST else f"{shown[: 2 * _LONGEST - 3]}..."
