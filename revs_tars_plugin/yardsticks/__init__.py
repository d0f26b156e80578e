"""The field's own benchmarks: their published files, what they measure, and the methods that people compare with."""

from .learning import learn
from .lume import LUME, read_lume
from .lume_scores import lume_scores
from .open_unlearning import write_open_unlearning
from .records import Record, Split
from .rivals import RIVALS, Rival, published_rival
from .side_by_side import RETAIN_ONLY, UNEDITED, Row, distance, side_by_side

__all__ = [
    "LUME",
    "RETAIN_ONLY",
    "RIVALS",
    "UNEDITED",
    "Record",
    "Rival",
    "Row",
    "Split",
    "distance",
    "learn",
    "lume_scores",
    "published_rival",
    "read_lume",
    "side_by_side",
    "write_open_unlearning",
]
