"""Consoles: rich on a terminal, plain full-width lines elsewhere; and quiet libraries."""

import logging
import os

from rich.console import Console

_PLAIN_WIDTH = 160


def stdout_console() -> Console:
    """The console for results."""
    console = Console(highlight=False, soft_wrap=False)
    return console if console.is_terminal else Console(highlight=False, width=_width())


def stderr_console() -> Console:
    """The console for progress; of several processes that train one model the main one's alone shows anything."""
    if os.environ.get("RANK", "0") != "0":
        return Console(stderr=True, quiet=True)
    console = Console(stderr=True, highlight=False)
    return console if console.is_terminal else Console(stderr=True, highlight=False, width=_width())


def quiet_libraries() -> None:
    """Keep notices of the libraries that say nothing to a user out of the output."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    for name in ("transformers", "adapters", "datasets", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _width() -> int:
    return int(os.environ.get("COLUMNS", _PLAIN_WIDTH))
