"""Downloads a model's folder from the Hugging Face Hub."""

from pathlib import Path
from typing import Any

from fastvae.errors import FastvaeError

_WANTED = ("model.safetensors", "config.json", "README.md", "*.png")


def hub() -> Any:
    """Imports the package huggingface_hub.

    Raises:
        FastvaeError: it is not installed.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise FastvaeError("the Hugging Face Hub needs huggingface_hub: pip install 'fastvae[hub]'") from error
    return huggingface_hub


def fetch(repo_id: str, **options: Any) -> Path:
    """The local copy of a repository, downloaded unless it is in huggingface_hub's cache.

    Args:
        repo_id: "user/name".
        options: of `huggingface_hub.snapshot_download`, such as revision, token, local_files_only.

    Raises:
        FastvaeError: huggingface_hub is not installed, the repository does not exist, is private or gated, the Hub
            cannot be reached, or an option is unknown.
    """
    try:
        library = hub()
    except FastvaeError as error:
        raise _failed(repo_id, str(error)) from error
    from huggingface_hub import errors

    try:
        return Path(library.snapshot_download(repo_id, allow_patterns=list(_WANTED), **options))
    except errors.GatedRepoError as error:
        why = "it is gated: accept its terms on its page, then log in with `hf auth login`"
        raise _failed(repo_id, why) from error
    except errors.RepositoryNotFoundError as error:
        why = "it does not exist, or it is private: `hf auth login` may help"
        raise _failed(repo_id, why) from error
    except errors.RevisionNotFoundError as error:
        raise _failed(repo_id, f"it has no revision {options.get('revision')!r}") from error
    except errors.HFValidationError as error:
        raise _failed(repo_id, f"that is not a valid repository name ({first_line(error)})") from error
    except Exception as error:  # there is no common class, and errors of its transfer libraries are passed through
        raise _failed(repo_id, f"it could not be reached ({first_line(error)})") from error


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its class if the message is empty."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _failed(repo_id: str, why: str) -> FastvaeError:
    return FastvaeError(
        f"there is no local path {repo_id}, and the Hugging Face repository of that name cannot be downloaded: {why}. "
        f"If you meant a new run: `fastvae train demo --out {repo_id}` creates one"
    )
