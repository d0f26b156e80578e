"""Lets the demo model make the ordinary text that the package ships for it; again when the demo model changes.

Run: python docs/make/sampled_text.py
"""

import numpy as np
from transformers import AutoModelForCausalLM, AutoTokenizer

from revs_tars_plugin.data import demo_model
from revs_tars_plugin.moments.ordinary_text import sample_from_model
from revs_tars_plugin.moments.shipped_text import FOLDER, SAMPLES, SEED, TOKENS, shipped_file


def main() -> None:
    """Writes the file, and removes that of an earlier model."""
    model, tok = (cls.from_pretrained(demo_model()) for cls in (AutoModelForCausalLM, AutoTokenizer))
    rows = np.array(list(sample_from_model(model, tok, SAMPLES, TOKENS, seed=SEED)), dtype=np.int32)
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.npy"):
        old.unlink()
    np.save(shipped_file(model), rows)


if __name__ == "__main__":
    main()
