"""Short names for transformers' two types, for annotations: they are imported by type checkers alone."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel as Model
    from transformers import PreTrainedTokenizerBase as Tokenizer
else:
    Model = Tokenizer = Any
