"""Ship an edit as a LoRA adapter that plain peft loads. Run: python examples/export_to_peft.py"""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from revs_tars_plugin import REVSHyperParams, execute_revs
from revs_tars_plugin.data import demo_model
from revs_tars_plugin.evaluation import greedy_continuation
from revs_tars_plugin.report.model_card import model_card, write_card

PROMPT = "The Titanic sank after hitting an"

folder = demo_model()
model, tok = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
hparams = REVSHyperParams.from_hparams("smollm2-135m-paper")  # hides single facts at once
edits = execute_revs(model, tok, [{"prompt": PROMPT, "forget": "iceberg"}], hparams)
edits.to_peft("adapter", base_model="HuggingFaceTB/SmolLM2-135M-Instruct")
write_card("adapter", model_card(edits, base_model="HuggingFaceTB/SmolLM2-135M-Instruct"))

print("base:", greedy_continuation(model, tok, PROMPT))
adapted = PeftModel.from_pretrained(model, "adapter")
print("with adapter:", greedy_continuation(adapted, tok, PROMPT))
with adapted.disable_adapter():
    print("adapter off:", greedy_continuation(adapted, tok, PROMPT))
