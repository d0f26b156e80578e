"""Measuring what an edit did: is it gone under attack, and what did it cost."""

from .attacks import LayerScores, attack_score, delta_scores, layer_scores, logit_lens_scores
from .capability import general_capability
from .concepts import fact_log_likelihoods, name_probabilities
from .contexts import in_context_prompts
from .continuation import greedy_continuation, greedy_continuations, still_generated
from .integrity import OrdinaryText, TextIntegrity, kl_divergence, next_token_log_probabilities
from .probes import Probe, probes_of
from .quantization import quantized
from .recall import Recall, recall, sampled_extractions
from .relearning import after_relearning
from .report import UnlearningReport
from .scores import efficacy, output_scores, unlearning_score
from .steps import ATTACKS
from .unlearning import evaluate_unlearning

__all__ = [
    "ATTACKS",
    "LayerScores",
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
