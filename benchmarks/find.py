"""Finding what a model gives away: memorised secrets, hidden in ordinary text among others that it never saw.

A model learns the drawn secrets of `benchmarks/pii.py` by heart; those that it gives away (48 for each seed) are hidden
in ordinary text, with 500 of the same kinds and wordings that it never saw. "recall" is the share of the memorised ones
that the search finds, "precision" the share of its findings that are memorised ones. With --lume FOLDER the corpus is
LUME's made-up people, those that the model learned and as many others.

Run: python benchmarks/find.py --text FILE [--seeds 0 1 2] [--megabytes 2] [--keep FOLDER]
     python benchmarks/find.py --lume FOLDER --people 6 --learned MODEL
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from revs_tars_plugin.data.drawn_secrets import drawn_secrets
from revs_tars_plugin.data.memorised import memorised_model
from revs_tars_plugin.discovery import find_memorised
from revs_tars_plugin.evaluation import still_generated
from revs_tars_plugin.formatting import headings_of, print_tables, terminal_table
from revs_tars_plugin.requests.reading import join
from revs_tars_plugin.yardsticks import read_lume

_UNSEEN = 500


def main() -> None:
    """Goes through the seeds and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, help="ordinary text, in which the secrets are hidden")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--megabytes", type=float, default=2, help="how much of it; it is repeated where it is short")
    parser.add_argument("--keep", type=Path, help="a folder that keeps each seed's corpus, for revs-tars clean")
    parser.add_argument("--lume", type=Path, help="a folder with LUME's files, in place of drawn secrets")
    parser.add_argument("--people", type=int, default=6, help="of LUME: people to forget, to retain, and unseen")
    parser.add_argument("--learned", type=Path, help="of LUME: the model that learned the former two")
    arguments = parser.parse_args()
    transformers.logging.disable_progress_bar()
    if arguments.lume:
        rows = {"LUME": of_lume(arguments)}
    else:
        rows = {f"seed {seed}": of_seed(seed, arguments) for seed in arguments.seeds}
    cells = [[key, *(f"{row[key]:.4g}" for row in rows.values())] for key in headings_of(list(rows.values()))]
    print_tables(terminal_table("Found", ["", *rows], cells))


def of_seed(seed: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Hides a seed's secrets in ordinary text and looks for them."""
    drawn = [each.record() for each in drawn_secrets(2, seed)]
    folder = memorised_model(drawn, f"drawn-2-{seed}", seed, lambda epoch, loss: print(f"{epoch}: {loss:.3f}"))
    model, tok = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    said = still_generated(model, tok, [each.prompt for each in drawn], [each.target for each in drawn])
    memorised = [each for each, given in zip(drawn, said, strict=True) if given]
    # The same kinds, in the same sentences, of other people.
    others = [each.record() for each in drawn_secrets(2 + _UNSEEN // 24, seed)]
    known = {each.target for each in drawn}
    unseen = [each for each in others if each.target not in known][:_UNSEEN]
    generator = random.Random(seed)
    hidden = [f"{join(each.prompt, each.target)}." for each in (*memorised, *unseen)]
    texts = in_ordinary_text(arguments.text.read_text(encoding="utf-8"), hidden, arguments.megabytes, generator)
    if arguments.keep:
        arguments.keep.mkdir(parents=True, exist_ok=True)
        file = arguments.keep / f"corpus-{seed}.jsonl"
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
        print(f"The corpus: {file}; the model that learned it: {folder}", flush=True)
    return figures(model, tok, texts, {each.target for each in memorised}, unseen=len(unseen))


def of_lume(arguments: argparse.Namespace) -> dict[str, float]:
    """Looks for what a model learned of LUME's people, among as many whom it never saw."""
    model = AutoModelForCausalLM.from_pretrained(arguments.learned)
    tok = AutoTokenizer.from_pretrained(arguments.learned)
    split = read_lume(arguments.lume, people=arguments.people, unseen=arguments.people)
    learned, unseen = (*split.forget, *split.retain), split.unseen
    questions = [each for each in learned if each.kind != "completion"]
    said = still_generated(model, tok, [each.prompt for each in questions], [each.answer for each in questions])
    memorised = {each.answer for each, given in zip(questions, said, strict=True) if given}
    texts = [join(each.prompt, each.answer) for each in (*learned, *unseen)]
    random.Random(0).shuffle(texts)
    read = [join(each.prompt, each.answer) for each in learned]
    return figures(model, tok, texts, memorised, unseen=len(unseen), learned=read)


def in_ordinary_text(text: str, hidden: list[str], megabytes: float, generator: random.Random) -> list[str]:
    """Returns pieces of ordinary text, so many characters in all, with every sentence somewhere in them."""
    size = int(megabytes * 1e6)
    lines = [line.strip() for line in (text * (1 + size // max(1, len(text))))[:size].splitlines() if line.strip()]
    for sentence, place in zip(hidden, sorted(generator.sample(range(len(lines)), len(hidden))), strict=True):
        sentences = re.split(r"(?<= \.) ", lines[place])
        sentences.insert(generator.randrange(len(sentences) + 1), sentence)
        lines[place] = " ".join(sentences)
    # As a file would be read: some thousand characters a piece.
    pieces, piece = [], ""
    for line in lines:
        piece += line + "\n"
        if len(piece) > 8000:
            pieces.append(piece)
            piece = ""
    return [*pieces, piece]


def figures(
    model: Any, tok: Any, texts: list[str], memorised: set[str], *, unseen: int, learned: Sequence[str] = ()
) -> dict[str, float]:
    """Looks for them, and compares what was found with what there is."""
    start = time.perf_counter()
    search = find_memorised(model, tok, texts)
    seconds = time.perf_counter() - start
    # Whole, and with what is glued to it in front.
    said = [_plain(finding.target) for finding in search.findings]
    right = [each for each in memorised if any(_plain(each) in target for target in said)]
    # Of a model that learned whole texts, whatever stands in one of them.
    numbers, whole = {_plain(each) for each in memorised}, [_plain(each) for each in learned]
    good = [
        each
        for each in search.findings
        if _plain(each.secret) in numbers or any(_plain(each.secret) in text for text in whole)
    ]
    for each in search.findings:
        if each not in good:
            print("not memorised:", each.kind, repr(each.secret), "behind", repr(each.prompts[0][-60:]))
    for each in sorted(memorised):
        if each not in right:
            print("missed:", repr(each))
    return {
        "memorised": len(memorised),
        "never seen": unseen,
        "candidates": sum(search.candidates.values()),
        "asked for": search.tested,
        "found": len(search.findings),
        "recall": len(right) / len(memorised),
        "precision": len(good) / max(1, len(search.findings)),
        "passes": search.passes,
        "corpus tokens": search.corpus_tokens,
        "seconds": seconds,
        "peak memory (MiB)": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _plain(text: str) -> str:
    return "".join(filter(str.isalnum, text)).casefold()


if __name__ == "__main__":
    main()
