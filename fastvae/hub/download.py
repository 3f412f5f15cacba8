"""Downloads a model's folder from the Hugging Face Hub."""

from pathlib import Path
from typing import Any

from fastvae.errors import FastvaeError
from fastvae.files.hugging_face import hub, why_not

_WANTED = ("model.safetensors", "config.json", "README.md", "*.png")


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
    try:
        return Path(library.snapshot_download(repo_id, allow_patterns=list(_WANTED), **options))
    except Exception as error:
        raise _failed(repo_id, why_not(error, options.get("revision"))) from error


def _failed(repo_id: str, why: str) -> FastvaeError:
    return FastvaeError(
        f"there is no local path {repo_id}, and the Hugging Face repository of that name cannot be downloaded: {why}. "
        f"If you meant a new run: `fastvae train demo --out {repo_id}` creates one"
    )
