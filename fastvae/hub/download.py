"""A model's folder from the Hugging Face Hub."""

from pathlib import Path
from typing import Any

from fastvae.errors import FastvaeError

_WANTED = ("model.safetensors", "config.json", "README.md", "*.png")


def hub() -> Any:
    """The package huggingface_hub.

    Raises:
        FastvaeError: it is not installed.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise FastvaeError("the Hugging Face Hub needs huggingface_hub: pip install 'fastvae[hub]'") from error
    return huggingface_hub


def fetch(repo_id: str, **options: Any) -> Path:
    """The local copy of a repository, downloaded where it is not in huggingface_hub's cache.

    Args:
        repo_id: "user/name".
        options: of `huggingface_hub.snapshot_download`, such as revision, token, local_files_only.

    Raises:
        FastvaeError: huggingface_hub is not installed, there is no such repository, it is private or gated, there is no
            connection, or an option is unknown.
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
        why = "the Hub knows no such repository, or it is private: `hf auth login` may help"
        raise _failed(repo_id, why) from error
    except errors.RevisionNotFoundError as error:
        raise _failed(repo_id, f"it has no revision {options.get('revision')!r}") from error
    except errors.HFValidationError as error:
        raise _failed(repo_id, f"that is no repository's name ({first_line(error)})") from error
    except (
        Exception
    ) as error:  # the library's have no class in common, and those of what it transfers with come through
        raise _failed(repo_id, f"it could not be reached ({first_line(error)})") from error


def first_line(error: Exception) -> str:
    """What an error says, in one line; its class where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _failed(repo_id: str, why: str) -> FastvaeError:
    return FastvaeError(
        f"there is no local path {repo_id}, and as a repository on the Hugging Face Hub it cannot be had: {why}. "
        f"If it was to be a run: `fastvae train demo --out {repo_id}` would make one"
    )
