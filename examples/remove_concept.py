"""Remove a concept through EasyEdit with alg_name: TARS. Run: python examples/remove_concept.py"""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from revs_tars_plugin import register
from revs_tars_plugin.data import demo_model, read_concepts_file
from revs_tars_plugin.evaluation import name_probabilities

demo_model()
register()

from easyeditor import BaseEditor, TARSHyperParams

concepts, _ = read_concepts_file()  # twenty that the model knows
concept = next(concept for concept in concepts if concept.name == "Potter")

hparams = TARSHyperParams.from_hparams("smollm2-135m")
hparams.batch_size = len(concept.prompts)  # all prompts of a concept go into one call
editor = BaseEditor.from_hparams(hparams)


def show(moment, model):
    """Prints how likely the name is after prompts that the edit never saw."""
    found = name_probabilities(model, editor.tok, concept.held_out, concept.name)
    print(f"{moment}: {concept.name}", " ".join(f"{probability:.3f}" for probability in found))


show("before", editor.model)
_, model, original = editor.batch_edit(
    prompts=list(concept.prompts),
    target_new=[concept.name] * len(concept.prompts),
    forget=[concept.name] * len(concept.prompts),
    sequential_edit=True,  # keep the edit: says so to branch main,
    keep_original_weight=False,  # and to the release
    verbose=False,
)
show("after", model)
(outcome,) = original.edits.outcomes
print(f"reversed: {outcome.reversed} vectors in {outcome.seconds:.1f} s")
original.edits.undo(model)
show("undone", model)
