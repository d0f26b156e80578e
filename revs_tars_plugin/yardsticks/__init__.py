"""The field's own benchmarks: their published files, what they measure, and the methods that people compare with."""

from .answers import rouge_l_scorer
from .benchmark import Benchmark, Scores
from .concepts import CONCEPTS, Concepts
from .learning import learn
from .lume import LUME, read_lume
from .lume_scores import Lume, lume_scores
from .open_unlearning import write_open_unlearning
from .published_files import published_folder
from .published_revs import PUBLISHED_REVS, PublishedRevs
from .records import Record, Split
from .rivals import RIVALS, Rival, published_rival
from .secrets import SECRETS, SSN, Secrets, drawn, read_ssn
from .side_by_side import RETAIN_ONLY, UNEDITED, Row, distance, side_by_side
from .tofu import TOFU, Choices, TofuFiles, read_tofu
from .tofu_scores import Tofu, forget_quality, tofu_scores

__all__ = [
    "CONCEPTS",
    "LUME",
    "PUBLISHED_REVS",
    "RETAIN_ONLY",
    "RIVALS",
    "SECRETS",
    "SSN",
    "TOFU",
    "UNEDITED",
    "Benchmark",
    "Choices",
    "Concepts",
    "Lume",
    "PublishedRevs",
    "Record",
    "Rival",
    "Row",
    "Scores",
    "Secrets",
    "Split",
    "Tofu",
    "TofuFiles",
    "distance",
    "drawn",
    "forget_quality",
    "learn",
    "lume_scores",
    "published_folder",
    "published_rival",
    "read_lume",
    "read_ssn",
    "read_tofu",
    "rouge_l_scorer",
    "side_by_side",
    "tofu_scores",
    "write_open_unlearning",
]
