"""Measuring what an edit did: is it gone under attack, and what did it cost."""

from .capability import general_capability
from .concepts import fact_log_likelihoods, fact_margins, name_margins, name_probabilities, names_like, share_forgotten
from .continuation import greedy_continuation, greedy_continuations, still_generated
from .enumeration import enumerated
from .exposure import Exposure
from .form import FormPlaces, form_places
from .guidance import guided_shares
from .in_context import in_context_prompts
from .integrity import OrdinaryText, TextIntegrity, kl_divergence, next_token_log_probabilities
from .inverse import inverse_shares
from .layer_attacks import LayerScores, attack_score, delta_scores, layer_scores, logit_lens_scores
from .likelihood import Comparison, Likelihood, compared, likelihoods
from .long_prefix import behind_long_prefixes
from .membership import area_under_curve, min_k, min_k_plus_plus, privacy_leakage
from .memorization import Recall, recall
from .merging import merged
from .metrics import ATTACKS, DEFAULT_ATTACKS, METRICS, RESISTANCE_ATTACKS, Metric
from .probes import Probe, probes_of
from .pruning import pruned
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
    "Comparison",
    "Exposure",
    "FormPlaces",
    "LayerScores",
    "Likelihood",
    "Metric",
    "OrdinaryText",
    "Probe",
    "Recall",
    "TextIntegrity",
    "UnlearningReport",
    "after_relearning",
    "area_under_curve",
    "attack_score",
    "behind_long_prefixes",
    "compared",
    "delta_scores",
    "efficacy",
    "enumerated",
    "evaluate_unlearning",
    "fact_log_likelihoods",
    "fact_margins",
    "form_places",
    "general_capability",
    "greedy_continuation",
    "greedy_continuations",
    "guided_shares",
    "in_context_prompts",
    "inverse_shares",
    "kl_divergence",
    "layer_scores",
    "likelihoods",
    "logit_lens_scores",
    "merged",
    "min_k",
    "min_k_plus_plus",
    "name_margins",
    "name_probabilities",
    "names_like",
    "next_token_log_probabilities",
    "output_scores",
    "privacy_leakage",
    "probes_of",
    "pruned",
    "quantized",
    "recall",
    "sampled_extractions",
    "share_forgotten",
    "still_generated",
    "unlearning_score",
]
