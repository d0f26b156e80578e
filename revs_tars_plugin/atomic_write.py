"""Files and folders that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Yields a file that takes the path's place when the block ends well; a crash leaves the old one or none.

    Raises:
        OSError: As writing does; what stood there before is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".unfinished", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder that becomes the path when the block ends well; a crash leaves none of that name.

    Where another process was quicker, its folder stays.

    Raises:
        OSError: As writing does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The name stays: what is written may say where it lies.
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=path.parent) as unfinished:
        folder = Path(unfinished) / path.name
        folder.mkdir()
        yield folder
        try:
            folder.rename(path)
        except OSError:
            if not path.is_dir():
                raise
