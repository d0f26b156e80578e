"""A card beside each export: what was done to the model, how it was measured, and what it shows to whom."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..edits.edit_set import EditSet
from ..errors import InputError
from ..formatting import markdown_table
from ..methods import METHODS
from .results import PRIVATE_SETTINGS

_WARNINGS = """## Before you publish this

- **It points at what was forgotten.** The direction of a change shows which token was demoted, and so does the
  difference between edited and public base weights. Whoever has both can read the tokens off. Treat an edit file or
  adapter of real secrets as the secrets themselves; where the base is public, a merged model is no better.
- Forgetting was measured by the attacks above and no others. Other prompts, fine-tuning or other attacks may bring
  something back; a right to erasure is not met by an edit alone.
- What the edit cost elsewhere was measured on the texts above and no others.
"""


def model_card(
    edits: EditSet,
    *,
    base_model: str = "",
    before: Mapping[str, float] | None = None,
    after: Mapping[str, float] | None = None,
    never_learned: Mapping[str, float] | None = None,
    kind: str = "adapter",
) -> str:
    """Returns a card in the form of the Hugging Face hub: YAML in front, Markdown behind it.

    No secret is in it: neither requests nor outcomes are read, and settings that hold paths are left out.

    Args:
        edits: The edit.
        base_model: What it belongs to: a hub name.
        before: Figures of the unedited model, as `UnlearningReport.summary`.
        after: The same of the edited one.
        never_learned: The same of a model that never learned the secrets.
        kind: What the card lies beside: "adapter", "edit file" or "merged model".
    """
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        base_model=base_model or None,
        library_name="peft" if kind == "adapter" else "transformers",
        tags=["unlearning", "model-editing", edits.method.lower()],
    )
    method = METHODS.get(edits.method)
    paper = method.paper if method is not None else None
    published = f" ([{paper.title}]({paper.address}))" if paper is not None else ""
    weights = {edit.name for edit in edits.edits}
    lines = [
        "---",
        data.to_yaml(),
        "---",
        "",
        f"# {edits.method} edit of {base_model or 'a language model'}",
        "",
        f"This {kind} makes the model forget what it was asked to forget, by editing weights, without training.",
        f"Method: {edits.method}{published}, by revs-tars-plugin.",
        f"It changes at most {edits.n_changed:,} numbers in {len(weights)} weights.",
        "",
        *_figures({"before": before or {}, "after": after or {}, "never learned": never_learned or {}}),
        "## Settings",
        "",
        *markdown_table(
            ["", ""],
            [[f"`{key}`", f"`{value}`"] for key, value in edits.settings.items() if key not in PRIVATE_SETTINGS],
            figures=False,
        ),
        "",
        _WARNINGS,
    ]
    return "\n".join(lines)


def write_card(folder: str | Path, text: str) -> Path:
    """Writes a card as `README.md` into a folder.

    Raises:
        InputError: When it cannot be written.
    """
    path = Path(folder).expanduser() / "README.md"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror or error}); name another folder.") from error
    return path


def push_to_hub(folder: str | Path, repo_id: str, *, private: bool = True, token: str | None = None) -> str:
    """Uploads an exported folder, with its card, to the Hugging Face hub; private unless said otherwise.

    Args:
        folder: What `to_peft` and `write_card` wrote.
        repo_id: `name/repository`; made where it does not exist.
        private: Whether a new repository is private.
        token: The token of the hub; by default the one that is logged in.

    Returns:
        The address of the commit.

    Raises:
        InputError: When the folder has no card, or the hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    source = Path(folder).expanduser()
    if not (source / "README.md").is_file():
        raise InputError(f"{source} has no README.md; write a model card first, so that people know what they get.")
    api = HfApi(token=token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit: Any = api.upload_folder(repo_id=repo_id, folder_path=str(source), ignore_patterns=[".*"])
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, ConnectionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"The hub refuses {repo_id} ({type(error).__name__}: {reason}); log in or check the name."
        ) from error
    return str(commit.commit_url)


def _figures(columns: Mapping[str, Mapping[str, float]]) -> list[str]:
    names = list(dict.fromkeys(name for figures in columns.values() for name in figures))
    if not names:
        return ["No figures were given with this export.", ""]
    # The first two are there in any case.
    columns = {title: figures for title, figures in columns.items() if figures or title != "never learned"}
    rows = [
        [name, *(f"{figures[name]:.4g}" if name in figures else "" for figures in columns.values())] for name in names
    ]
    return ["## Measured", "", *markdown_table(["", *columns], rows), ""]
