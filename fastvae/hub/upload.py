"""Uploads a model through huggingface_hub's mixin, for `VAE.push_to_hub`."""

from pathlib import Path
from typing import Any

from fastvae.errors import FastvaeError, first_line
from fastvae.files.hugging_face import hub
from fastvae.hub import folder
from fastvae.models import VAE
from fastvae.train.run_summary import RunSummary


def upload(vae: VAE, repo_id: str, *, run: RunSummary | None = None, license: str | None = None, **options: Any) -> str:
    """See `VAE.push_to_hub`."""
    hub()
    # Not a base class of VAE: huggingface_hub is optional, and takes half a second to import. Downloads use
    # `download.fetch`, since the mixin's download requests the config first and has error messages of its own.
    from huggingface_hub import ModelHubMixin, errors

    class HubVAE(ModelHubMixin):
        def _save_pretrained(self, save_directory: Path) -> None:
            folder.write(vae, save_directory, run=run, license=license)

    try:
        return str(HubVAE().push_to_hub(repo_id, **options))
    except FastvaeError:
        raise
    except Exception as error:  # there is no common class, and errors of its transfer libraries are passed through
        refused = isinstance(error, (errors.HfHubHTTPError, errors.LocalTokenNotFoundError))
        raise FastvaeError(
            f"{repo_id or repr(repo_id)} could not be uploaded to the Hugging Face Hub ({first_line(error)}): "
            + ("`hf auth login` logs in; " if refused else "")
            + "`save_pretrained` keeps a copy here"
        ) from error
