"""Tries settings of the host's own editors on SmolLM2-135M: python benchmarks/rivals.py [--method NAME].

So that no rival runs untuned: each writes "unknown" in the place of secrets that the model knows by heart, with the
settings of its packaged YAML and with others. A good one writes it (rewrite_acc near 1) and leaves the rest alone
(specificity near 1, KL near 0). Two seeds, each with other secrets; means of both. Needs EasyEdit's branch main.
"""

import argparse
import contextlib
import io
import logging
import os
import tempfile
import time
import warnings

import torch

from revs_tars_plugin.data.memorised import memorised_demo
from revs_tars_plugin.evaluation import OrdinaryText
from revs_tars_plugin.formatting import print_table
from revs_tars_plugin.host import register, unlearn_editor
from revs_tars_plugin.host.editors import editor_of
from revs_tars_plugin.host.settings import load_settings

SEEDS = (0, 1)
TEXT = ["The river runs through the old town, where people sell bread and fish every morning before the bells ring."]
# Beside the packaged ones.
TRIED = {
    "FT": [{"lr": 1e-4}, {"layers": [10]}],
    "LoRA": [
        {"num_steps": 10},
        {"lr": 1e-3, "num_steps": 10},
        {"num_steps": 70, "lr": 5e-3},
        {"rank": 2, "lora_alpha": 8},
    ],
    "ULTRAEDIT": [{"lr": 1e-6}, {"lr": 3e-5}, {"lr": 3e-4}, {"lr": 1e-3}],
    "ROME": [{"layers": [10]}],
    "R-ROME": [{"layers": [10]}],
    "MEMIT": [{"mom2_update_weight": 15000}],
    "EMMET": [{"mom2_update_weight": 1500}, {"layers": [8]}],
    "AlphaEdit": [{"L2": 10}, {"nullspace_threshold": 2e-1}],
    "GRACE": [{"eps": 10.0}],
}


def main() -> None:
    """Prints a row for each setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", action="append", choices=TRIED, help="only this; may be given several times")
    parser.add_argument("--secrets", type=int, default=3, help="how many a seed")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    folder, forget, retain = memorised_demo(lambda epoch, loss: None)
    os.chdir(tempfile.mkdtemp())  # the host writes logs where it runs
    host = register()
    methods = [name for name in arguments.method or TRIED if name in host.algorithms]
    editor, text, rows = None, None, []
    for name in methods:
        for changes in ({}, *TRIED[name]):
            hparams = load_settings(host, name, editor_of(name).settings)
            hparams.model_name = str(folder)
            if hasattr(hparams, "stats_dir"):
                hparams.stats_dir = str(folder.parent / "stats")
            for key, value in changes.items():
                setattr(hparams, key, value)
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                if editor is None:
                    editor = unlearn_editor.UnlearnEditor.from_hparams(hparams)
                    text = OrdinaryText.of(editor.model, editor.tok, TEXT)
                editor.hparams, editor.alg_name, editor.apply_algo = hparams, name, host.algorithms[name]
                start = time.perf_counter()
                runs = [measured(editor, forget, retain, text, seed=seed, count=arguments.secrets) for seed in SEEDS]
            row = {
                "method": name,
                "changed": ", ".join(f"{key} {value}" for key, value in changes.items()) or "packaged",
            }
            row.update({key: sum(run[key] for run in runs) / len(runs) for key in runs[0]})
            rows.append({**row, "s": (time.perf_counter() - start) / len(SEEDS)})
            print(
                " ".join(
                    f"{key} {value:.3g}" if isinstance(value, float) else str(value) for key, value in rows[-1].items()
                )
            )
    print_table(f"{arguments.secrets} secrets a seed, {len(SEEDS)} seeds", rows)


def measured(editor, forget, retain, text, *, seed, count):
    """The figures of one seed, whose secrets are others than the next one's."""
    chosen = forget[seed * count : (seed + 1) * count]
    torch.manual_seed(seed)
    result = editor.unlearn(
        [secret.prompt for secret in chosen],
        [secret.target for secret in chosen],
        subjects=[secret.subject for secret in chosen],
        retain=retain[:8],
        corpus=text,
        attacks=(),
        keep=False,
    )
    wanted = {"rewrite_acc": "post, rewrite_acc", "efficacy": "efficacy", "specificity": "specificity", "KL": "kl_mean"}
    return {name: float(result.summary[key]) for name, key in wanted.items()}


if __name__ == "__main__":
    main()
