"""A picture that carries what it was drawn of, so that a command or a test can tell whether it is out of date."""

from pathlib import Path

from PIL import Image

_KEY = "Description"


def text_entry(content: str) -> dict[str, str]:
    """The PNG's text entries that say what it was drawn of."""
    return {_KEY: content}


def is_drawn_of(path: Path, content: str) -> bool:
    """Whether there is a picture at `path`, drawn of this."""
    if not path.exists():
        return False
    with Image.open(path) as picture:
        return picture.info.get(_KEY) == content
