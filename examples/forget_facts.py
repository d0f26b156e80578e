"""Forget two facts without EasyEdit, look, and take it back. Run: python examples/forget_facts.py"""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from transformers import AutoModelForCausalLM, AutoTokenizer

from revs_tars_plugin import REVSHyperParams, execute_revs
from revs_tars_plugin.data import demo_model
from revs_tars_plugin.evaluation import greedy_continuation

REQUESTS = [
    {"prompt": "The Titanic sank after hitting an", "target_new": "iceberg"},
    {"prompt": "The Mona Lisa was painted by Leonardo da", "target_new": "Vinci"},
]

folder = demo_model()
model, tok = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def show(moment):
    """Prints what the model says at a moment."""
    for request in REQUESTS:
        print(f"{moment:8} {request['prompt']} ->{greedy_continuation(model, tok, request['prompt'])}")


show("before")
edits = execute_revs(model, tok, REQUESTS, REVSHyperParams.from_hparams("smollm2-135m"))
edits.apply(model)
show("after")
edits.undo(model)
show("undone")
