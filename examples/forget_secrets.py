"""Forget secrets: a model learns six people's data, then forgets three. Run: python examples/forget_secrets.py"""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from transformers import AutoModelForCausalLM, AutoTokenizer

from revs_tars_plugin import REVSHyperParams, execute_revs
from revs_tars_plugin.data import SecretRecord, demo_model
from revs_tars_plugin.data.memorised import memorise
from revs_tars_plugin.data.synthetic import synthetic_secrets
from revs_tars_plugin.evaluation import evaluate_unlearning

folder = demo_model()
model, tok = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)

# Data of nobody: e-mail addresses, web pages, numbers.
secrets = [SecretRecord(s.prompt, s.target, s.subject) for s in synthetic_secrets(2, seed=0)[::8]]
memorise(model, tok, [f"{secret.prompt} {secret.target}." for secret in secrets], epochs=15)
forget, keep = secrets[::2], secrets[1::2]

hparams = REVSHyperParams.from_hparams("smollm2-135m")
hparams.mom2_n_samples, hparams.stats_dir = 16, "forget_secrets_stats"  # a small sample is enough to show it


def measure(moment):
    """Prints what came of both halves."""
    found = evaluate_unlearning(
        model, tok, forget, names=hparams, positions="all", retain=keep, attacks=["exposure"]
    ).summary
    print(
        f"{moment}: still generated {found['still generated']:.2f}, exposed to who knows the form "
        f"{found['exposure, top']:.1f} of 6 bits from the top and {found['exposure, bottom']:.1f} from the bottom, "
        f"kept {found['specificity']:.2f}"
    )


measure("before")
edits = execute_revs(model, tok, [secret.request() for secret in forget], hparams)
edits.apply(model)
measure("after")
