"""Do secrets come out behind other wordings, and are the retained ones still there behind theirs?"""

from __future__ import annotations

from ..data.secret_files import SecretRecord
from .run import EvaluationRun


def measure_paraphrased(run: EvaluationRun) -> None:
    """Asks by the other wordings."""
    if run.rewordings:
        prompts, secrets = ([wording for _, wording in run.rewordings], [index for index, _ in run.rewordings])
        run.note_reworded("paraphrase", run.generated(prompts, [run.targets[index] for index in secrets]))
    retained = [SecretRecord(wording, secret.target) for secret in run.retain for wording in secret.rewordings]
    if retained:
        run.summary["specificity, paraphrased"] = run.share_generated(retained)
