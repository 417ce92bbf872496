"""Small untrained models, for testing mechanics that do not depend on what a model knows. Never used in a lesson."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


def tiny_gpt2(seed: int = 0, dropout: float = 0.0) -> GPT2LMHeadModel:
    """Return a GPT-2 of two layers, whose linear layers are transposed (`Conv1D`), in evaluation mode."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=100, n_positions=64, n_embd=16, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=2,
        resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


def tiny_llama(seed: int = 0) -> LlamaForCausalLM:
    """Return a Llama of two layers, in evaluation mode."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=100, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def save_gpt2(folder: Path, words: Sequence[str], positions: int, width: int, end: int, **special: str) -> Path:
    """Save a GPT-2 of one layer with random weights, and a tokenizer of these words, with the special tokens named."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=len(words), n_positions=positions, n_embd=width, n_layer=1, n_head=2,
            bos_token_id=1, eos_token_id=end,
        )  # fmt: skip
        GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    return folder
