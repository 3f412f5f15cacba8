"""The package huggingface_hub, which is optional, and its errors as human-readable reasons."""

import errno
from typing import Any

from fastvae.errors import FastvaeError, first_line
from fastvae.files.cache import ADVICE

_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG, errno.EIO}


def hub() -> Any:
    """Imports the package huggingface_hub.

    Raises:
        FastvaeError: it is not installed.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise FastvaeError("the Hugging Face Hub needs huggingface_hub: pip install -e '.[hub]'") from error
    return huggingface_hub


def why_not(error: Exception, revision: str | None = None) -> str:
    """Why a request failed, and what to do.

    Args:
        error: from huggingface_hub. There is no common class, and errors of its transfer libraries are passed through.
        revision: that was requested.
    """
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return "it is gated: accept its terms on its page, then log in with `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "it does not exist, or it is private: `hf auth login` may help"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"it has no revision {revision!r}"
    if isinstance(error, errors.HFValidationError):
        return f"that is not a valid repository name ({first_line(error)})"
    if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
        return f"it could not be written ({error.strerror}): {ADVICE}"
    return f"it could not be reached ({first_line(error)})"
