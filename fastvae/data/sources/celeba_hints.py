"""What to say of a plain folder that may have been meant as CelebA."""

import dataclasses

from fastvae.data.sources.celeba_form import looks_like_celeba
from fastvae.data.sources.celeba_lists import ATTRIBUTES_LIST, SPLITS_LIST
from fastvae.data.sources.celeba_places import Places, has_its_name
from fastvae.data.sources.source import Source


def with_hint(source: Source, places: Places) -> Source:
    """The source, with a warning if its pictures look like CelebA's, and a note on lists that are not used."""
    lists = places.lists
    missing = [name for name in (ATTRIBUTES_LIST, SPLITS_LIST) if name not in lists]
    found = " and ".join(file.shown for file in lists.values())
    if looks_like_celeba(source):
        reason = (
            f"{' and '.join(missing)} (.txt or .csv) is not in, beside or above it"
            if missing
            else "its pictures are in more than one folder"
        )
        unused = f" ({found} is not used without the other)" if len(missing) == 1 else ""
        warning = f"this may be CelebA, but {reason}{unused}: read without its attributes and splits"
        return dataclasses.replace(source, warnings=(*source.warnings, warning))
    if not missing and not any(map(has_its_name, source.names)):
        note = f"CelebA's lists are not used, since the pictures are not named as in them: {found}"
        return dataclasses.replace(source, notes=(*source.notes, note))
    return source
