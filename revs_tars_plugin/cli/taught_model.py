"""Models that learned a benchmark's records: made once, kept, and taken again."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..atomic_write import replacing_folder
from .kept_rows import files_in

if TYPE_CHECKING:
    from ..yardsticks import Record

_CACHE = Path("~/.cache/revs-tars-plugin/benchmarks")


def taught_model(
    base: str,
    name: str,
    records: Sequence[Record],
    *,
    epochs: int,
    seed: int,
    device: str | None,
    say: Callable[[str], None] | None,
) -> Path:
    """Returns a checkpoint of a model that learned the records, made once and kept.

    Args:
        base: The checkpoint that learns.
        name: What it becomes, for the folder and for what is said.
        records: What it learns.
        epochs: How many times it reads them.
        seed: Seed of their order.
        device: Where it learns.
        say: Is told how far it is; None where nothing is to be told.
    """
    # The last name is the base's: EasyEdit and the settings go by it.
    last = Path(base).name
    content = repr((base, files_in(Path(base)), [(record.prompt, record.answer) for record in records], epochs, seed))
    folder = _CACHE.expanduser() / f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:12]}" / last
    if (folder / "config.json").is_file():
        return folder
    shutil.rmtree(folder, ignore_errors=True)  # what an earlier run left half
    from ..yardsticks import learn
    from .loading import load_model, save_model

    def told(epoch: int, loss: float) -> None:
        if say is not None:
            say(f"{name}: epoch {epoch + 1} of {epochs}, loss {loss:.3f}")

    loaded = load_model(base, device, "float32", progress=say is not None)
    learn(loaded.model, loaded.tok, records, epochs=epochs, seed=seed, progress=told)
    # Whole or not there: an interrupted run must not leave half a model for the next one.
    with replacing_folder(folder) as unfinished:
        save_model(loaded, unfinished)
    return folder
