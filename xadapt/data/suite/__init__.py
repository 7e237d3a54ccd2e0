"""The embedded suite: tasks rendered from language-independent scenes, needing nothing but this package."""

from .grammar import languages
from .rows import SUITE_VERSION, suite_identity, suite_rows, suite_size, task_languages

__all__ = ["SUITE_VERSION", "languages", "suite_identity", "suite_rows", "suite_size", "task_languages"]
