"""Lessons on continual learning: one task after another, and what keeps the earlier ones."""

from ..lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "adapters": ["Averaged", "PerTask"],
        "digits": ["DigitScenario", "digit_network", "drifting_digits", "permuted_digits", "split_digits"],
        "distillation": ["LwF"],
        "ewc": ["EWC", "fisher_diagonal"],
        "nearest_mean": ["NearestMean"],
        "online": ["Rate", "SGDLearner", "make_detector", "prequential"],
        "peak_memory": ["learning_bytes"],
        "replay": ["Replay"],
        "stream": [
            "Joint",
            "Method",
            "fit",
            "run_stream",
            "set_trainable_state",
            "trainable_state",
            "validation_stream",
        ],
    },
)
