"""Keep an edit across restarts: compute it, load and undo it in another process. Run: python examples/keep_edit.py"""

import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from transformers import AutoModelForCausalLM, AutoTokenizer

from revs_tars_plugin import EditSet, REVSHyperParams, execute_revs
from revs_tars_plugin.data import demo_model
from revs_tars_plugin.evaluation import greedy_continuation

FILE = Path("edit.safetensors")
PROMPT = "The Mona Lisa was painted by Leonardo da"

folder = demo_model()
model, tok = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)

if sys.argv[1:] != ["again"]:
    hparams = REVSHyperParams.from_hparams("smollm2-135m-paper")  # hides single facts at once
    edits = execute_revs(model, tok, [{"prompt": PROMPT, "forget": "Vinci"}], hparams)
    edits.save(FILE)
    print(f"saved: {FILE.stat().st_size / 2**20:.2f} MiB")
    print("before:", greedy_continuation(model, tok, PROMPT), flush=True)
    subprocess.run([sys.executable, __file__, "again"], check=True)
else:
    edits = EditSet.load(FILE)
    edits.apply(model)
    print("after a restart:", greedy_continuation(model, tok, PROMPT))
    edits.undo(model)
    print("undone:", greedy_continuation(model, tok, PROMPT))
