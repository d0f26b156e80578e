"""What an edit cost the model elsewhere: tasks of the lm-evaluation-harness."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import InputError

_INSTALL = "pip install 'revs-tars-plugin[lm-eval]'"


def general_capability(
    model: nn.Module,
    tok: Any,
    tasks: Sequence[str] = ("mmlu", "gsm8k"),
    *,
    include_path: str | Path | None = None,
    num_fewshot: int | None = None,
    limit: int | None = None,
    batch_size: int = 8,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Runs tasks of the lm-evaluation-harness on the model as it stands (REVS reports MMLU and GSM8K, its section 5).

    Args:
        model: A causal language model.
        tok: Its tokenizer.
        tasks: Names of tasks or groups that the harness knows.
        include_path: A folder with task files of one's own.
        num_fewshot: Examples in front of each question; by default the task's own number.
        limit: How many questions of each task; by default all.
        batch_size: Questions a pass.
        seed: Seed of the choice of examples.

    Returns:
        For each task its metrics by name, as the harness calls them ("acc", "exact_match,strict-match").

    Raises:
        InputError: When the harness is not installed, knows no such task, or a task's data is not at hand.
    """
    try:
        import lm_eval
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise InputError(f"general_capability needs the lm-evaluation-harness ({error.name}): {_INSTALL}") from error
    if not tasks:
        raise InputError("tasks is empty; name at least one, such as mmlu.")
    manager = TaskManager(include_path=None if include_path is None else str(include_path))
    unknown = sorted(set(tasks) - set(manager.all_tasks))
    if unknown:
        raise InputError(f"tasks names {', '.join(unknown)}, which the lm-evaluation-harness does not know.")
    training = model.training
    try:
        results = lm_eval.simple_evaluate(
            model=HFLM(pretrained=model, tokenizer=tok, batch_size=batch_size),
            tasks=list(tasks),
            task_manager=manager,
            num_fewshot=num_fewshot,
            limit=limit,
            bootstrap_iters=0,
            log_samples=False,
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
        )
    except Exception as error:  # offline, the data set library raises errors of many kinds
        if not _is_about_data(error):
            raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        raise InputError(
            f"The data of {', '.join(tasks)} is not at hand ({reason}); run once with access to the Hugging Face hub, "
            "so that it is kept, or name tasks of your own by include_path."
        ) from error
    finally:
        model.train(training)
    return {task: _metrics(values) for task, values in results["results"].items()}


def _metrics(values: dict[str, Any]) -> dict[str, float]:
    """Drops what is no measure, and the filter's name where there is but one."""
    kept = {name: value for name, value in values.items() if isinstance(value, float) and "stderr" not in name}
    return {name.removesuffix(",none"): value for name, value in kept.items()}


def _is_about_data(error: BaseException) -> bool:
    """Whether an error comes from looking for a data set, in any of the libraries that do so."""
    libraries = ("datasets", "huggingface_hub", "fsspec", "httpx", "requests")
    while error is not None:
        if type(error).__module__.partition(".")[0] in libraries or isinstance(
            error, (ConnectionError, FileNotFoundError)
        ):
            return True
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return False
