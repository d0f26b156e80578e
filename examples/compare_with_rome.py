"""REVS beside EasyEdit's ROME on one fact, scored alike. Run: python examples/compare_with_rome.py"""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from revs_tars_plugin.data import SecretRecord, demo_model
from revs_tars_plugin.host.comparison import compare

FORGET = [SecretRecord("The Titanic sank after hitting an", "iceberg", subject="Titanic")]
RETAIN = [
    SecretRecord("The capital of Japan is", "Tokyo"),
    SecretRecord("The chemical symbol for gold is", "Au"),
    SecretRecord("Isaac Newton discovered the law of universal", "gravitation"),
]
ORDINARY = [
    "The river runs through the old town and on to the sea, past fields of wheat and small farms.",
    "She opened the letter, read it twice, and put it back into the drawer of her desk.",
    "Water boils at one hundred degrees, and at a lower temperature on top of a mountain.",
]

rows = compare(
    demo_model(),
    FORGET,
    retain=RETAIN,
    corpus=ORDINARY,
    methods=["REVS", "ROME"],
    settings={"REVS": "smollm2-135m-paper"},  # for a single fact; ROME's packaged settings are EasyEdit's own
    attacks=["logit lens"],
)
for row in rows:
    figures = row.figures
    print(
        f"{row.method:8} efficacy {figures['efficacy']:.2f}, kept {figures['specificity']:.2f}, "
        f"KL {figures['kl_median']:.5f}, {row.seconds or 0:.1f} s"
    )
