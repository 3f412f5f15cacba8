"""What to say of a plain folder that may have been meant as CelebA."""

import dataclasses

from fastvae.data.sources.celeba_form import looks_like_celeba, picture_sizes
from fastvae.data.sources.celeba_lists import ATTRIBUTES_LIST, SPLITS_LIST
from fastvae.data.sources.celeba_places import Places, has_its_name
from fastvae.data.sources.listing import list_pictures
from fastvae.data.sources.source import Source


def are_of_others(places: Places) -> bool:
    """Whether lists that lie further up are those of other pictures, which have numbers for names, too.

    CelebA's own are of one size, except in the wild, in `img_celeba`.
    """
    if places.container is not None or places.pictures.name.startswith("img_"):
        return False
    # The official folder has its lists in Anno and Eval, beside Img.
    folders = {file.path.parent for file in places.lists.values()}
    if any(f.name in ("Anno", "Eval") or f in (places.pictures, places.pictures.parent) for f in folders):
        return False
    names = list_pictures(places.pictures).names
    return len(set(picture_sizes([places.pictures / name for name in names]))) > 1


def with_hint(source: Source, places: Places) -> Source:
    """The source, with a warning if its pictures look like CelebA's, and a note on lists that are not used."""
    lists = places.lists
    missing = [name for name in (ATTRIBUTES_LIST, SPLITS_LIST) if name not in lists]
    found = " and ".join(file.shown for file in lists.values())
    others = places.are_complete and are_of_others(places)
    if looks_like_celeba(source) and not others:
        reason = (
            f"{' and '.join(missing)} (.txt or .csv) is not in, beside or above it"
            if missing
            else "its pictures are in more than one folder"
        )
        unused = f" ({found} is not used without the other)" if len(missing) == 1 else ""
        warning = f"this may be CelebA, but {reason}{unused}: read without its attributes and splits"
        return dataclasses.replace(source, warnings=(*source.warnings, warning))
    if others:
        note = (
            f"CelebA's lists are not used, since they lie further up and these pictures have different sizes: {found}; "
            "--kind celeba uses them"
        )
        return dataclasses.replace(source, notes=(*source.notes, note))
    if not missing and not any(map(has_its_name, source.names)):
        note = f"CelebA's lists are not used, since the pictures are not named as in them: {found}"
        return dataclasses.replace(source, notes=(*source.notes, note))
    return source
