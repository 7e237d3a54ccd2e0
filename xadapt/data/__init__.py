"""Where rows come from: the hub, a mirror folder, XTREME's own download, the embedded suite; always the same canonical rows."""

from xadapt.data.rows import Rows
from xadapt.data.sources import Source, open_source

__all__ = ["Rows", "Source", "open_source"]
