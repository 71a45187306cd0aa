"""moelab answers "which Mixture-of-Experts model should we train?": train small, fit laws, plan, verify."""

__version__ = "0.1.0"
