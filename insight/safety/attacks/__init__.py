"""Attacks that are made of the run's own text, and overrides; bias and toxicity have folders of their own."""

from insight.safety.attacks.canaries import PlantedSecrets
from insight.safety.attacks.injection import OverrideInjection
from insight.safety.attacks.memorisation import TrainingPrefixes

__all__ = ["OverrideInjection", "PlantedSecrets", "TrainingPrefixes"]
