"""Rows of tokens, and a short training loop over them, in one process or in several."""

from ..lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "cost": ["measure", "training_bytes"],
        "data": ["domain_experience", "task_experience"],
        "labels": ["label_chips"],
        "loop": ["TrainConfig", "train"],
        "rows": ["Batch", "collate", "exact_rows", "perplexity", "task_rows", "token_loss"],
    },
)
