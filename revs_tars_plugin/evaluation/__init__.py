"""Measuring what an edit did: is it gone under attack, and what did it cost."""

from .capability import general_capability
from .concepts import fact_log_likelihoods, name_probabilities
from .continuation import greedy_continuation, greedy_continuations, still_generated
from .in_context import in_context_prompts
from .integrity import OrdinaryText, TextIntegrity, kl_divergence, next_token_log_probabilities
from .layer_attacks import LayerScores, attack_score, delta_scores, layer_scores, logit_lens_scores
from .memorization import Recall, recall
from .metrics import ATTACKS, DEFAULT_ATTACKS, METRICS, RESISTANCE_ATTACKS, Metric
from .probes import Probe, probes_of
from .quantization import quantized
from .relearning import after_relearning
from .sampling import sampled_extractions
from .scores import efficacy, output_scores, unlearning_score
from .unlearning import evaluate_unlearning
from .unlearning_report import UnlearningReport

__all__ = [
    "ATTACKS",
    "DEFAULT_ATTACKS",
    "METRICS",
    "RESISTANCE_ATTACKS",
    "LayerScores",
    "Metric",
    "OrdinaryText",
    "Probe",
    "Recall",
    "TextIntegrity",
    "UnlearningReport",
    "after_relearning",
    "attack_score",
    "delta_scores",
    "efficacy",
    "evaluate_unlearning",
    "fact_log_likelihoods",
    "general_capability",
    "greedy_continuation",
    "greedy_continuations",
    "in_context_prompts",
    "kl_divergence",
    "layer_scores",
    "logit_lens_scores",
    "name_probabilities",
    "next_token_log_probabilities",
    "output_scores",
    "probes_of",
    "quantized",
    "recall",
    "sampled_extractions",
    "still_generated",
    "unlearning_score",
]
