"""The parts of committed pages that commands write, each between two comments that only its source shows."""


def replaced(page: str, name: str, text: str) -> str:
    """The page with this text between the marks of the part.

    Raises:
        ValueError: it has not exactly one of each mark.
    """
    first, last = f"<!-- {name} -->", f"<!-- /{name} -->"
    if page.count(first) != 1 or page.count(last) != 1:
        raise ValueError(f"the page needs {first} and {last} once each, around what is written there")
    before, _, rest = page.partition(first)
    return f"{before}{first}\n{text}\n{last}{rest.partition(last)[2]}"
