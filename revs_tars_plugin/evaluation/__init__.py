"""Measuring what an edit did: is it gone under attack, and what did it cost."""

from .attacks import attack_score, delta_scores, logit_lens_scores
from .concepts import fact_log_likelihoods, name_probabilities
from .contexts import in_context_prompts
from .continuation import greedy_continuation, greedy_continuations
from .integrity import OrdinaryText, TextIntegrity, kl_divergence, next_token_log_probabilities
from .probes import Probe, probes_of
from .quantization import quantized
from .recall import Recall, recall, sampled_extractions
from .relearning import after_relearning
from .scores import efficacy, unlearning_score

__all__ = [
    "OrdinaryText",
    "Probe",
    "Recall",
    "TextIntegrity",
    "after_relearning",
    "attack_score",
    "delta_scores",
    "efficacy",
    "fact_log_likelihoods",
    "greedy_continuation",
    "greedy_continuations",
    "in_context_prompts",
    "kl_divergence",
    "logit_lens_scores",
    "name_probabilities",
    "next_token_log_probabilities",
    "probes_of",
    "quantized",
    "recall",
    "sampled_extractions",
    "unlearning_score",
]
