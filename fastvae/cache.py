"""Where downloaded files are kept."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$FASTVAE_CACHE`, else `$XDG_CACHE_HOME/fastvae`, else `~/.cache/fastvae`. It need not exist yet."""
    own = os.environ.get("FASTVAE_CACHE")
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "fastvae"
