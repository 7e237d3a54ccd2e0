"""Where what is made once and kept lies: the user's cache directory, or the folder that XADAPT_CACHE names."""

import os
from pathlib import Path


def cache_root(cache_dir: Path | None = None) -> Path:
    """The folder of what is made once and kept: the one given, else $XADAPT_CACHE, else the user's cache directory."""
    import platformdirs

    chosen = cache_dir or os.environ.get("XADAPT_CACHE") or platformdirs.user_cache_dir("xadapt")
    return Path(chosen).expanduser()
