"""Measuring what an edit did: is it gone under attack, and what did it cost."""

from .attacks import attack_score, delta_scores, logit_lens_scores
from .continuation import greedy_continuation, greedy_continuations
from .integrity import OrdinaryText, TextIntegrity, kl_divergence, next_token_log_probabilities
from .probes import Probe, probes_of
from .scores import efficacy, unlearning_score

__all__ = [
    "OrdinaryText",
    "Probe",
    "TextIntegrity",
    "attack_score",
    "delta_scores",
    "efficacy",
    "greedy_continuation",
    "greedy_continuations",
    "kl_divergence",
    "logit_lens_scores",
    "next_token_log_probabilities",
    "probes_of",
    "unlearning_score",
]
