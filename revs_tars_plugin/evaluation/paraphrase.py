"""Do secrets come out behind other wordings, and are the retained ones still there behind theirs?"""

from __future__ import annotations

from ..data.secret_files import SecretRecord
from .run import EvaluationRun, mean


def measure_paraphrased(run: EvaluationRun) -> None:
    """Asks by the other wordings."""
    if run.reworded:
        prompts = [run.rewordings[index] for index in run.reworded]
        generated = run.generated(prompts, [run.targets[index] for index in run.reworded])
        for index, said in zip(run.reworded, generated, strict=True):
            run.rows[index]["paraphrase"] = said
        run.summary["paraphrase"] = mean(generated)
    retained = [SecretRecord(s.rephrase_prompt, s.target) for s in run.retain if s.rephrase_prompt]
    if retained:
        run.summary["specificity, paraphrased"] = run.share_generated(retained)
