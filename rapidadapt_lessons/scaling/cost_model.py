"""What a training step costs, on paper: operations, memory, and bytes between machines, for a model of any size.

The model is a decoder like Llama. Operations: Kaplan et al. 2020, arXiv 2001.08361, section 2.1. Memory: Rajbhandari et
al. 2020, arXiv 1910.02054, section 3.1. All-reduce: Patarasuk and Yuan 2009, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import CourseError
from ..guards import require_at_least, require_one_of

TRAIN_ALL, TRAIN_LORA = "all weights", "LoRA"  # the methods


@dataclass(frozen=True)
class Shape:
    """A decoder's sizes."""

    layers: int  # blocks
    width: int  # numbers for each token between blocks
    key_width: int  # numbers that `k_proj` and `v_proj` put out
    mlp: int  # units inside the feed-forward part
    vocabulary: int  # tokens
    tied: bool  # whether the output layer is the embedding

    @property
    def block_weights(self) -> int:
        """Numbers in the matrices of all blocks: q, k, v, o; gate, up, down."""
        return self.layers * self.width * (2 * self.width + 2 * self.key_width + 3 * self.mlp)

    @property
    def output_weights(self) -> int:
        """Numbers in the output layer, and as many in the embedding."""
        return self.vocabulary * self.width

    @property
    def weights(self) -> int:
        """All numbers: blocks, embedding, output layer, and two norms in each block and one at the end."""
        norms = (2 * self.layers + 1) * self.width
        return self.block_weights + self.output_weights * (1 if self.tied else 2) + norms

    def lora_weights(self, rank: int) -> int:
        """Numbers in LoRA's A and B beside `q_proj` and `v_proj`."""
        return self.layers * rank * (3 * self.width + self.key_width)

    def trained_weights(self, method: str, rank: int = 8) -> int:
        """How many numbers get a gradient; CourseError for an unknown method."""
        require_one_of((TRAIN_ALL, TRAIN_LORA), "method", method)
        return self.weights if method == TRAIN_ALL else self.lora_weights(rank)


SMOLLM2_135M = Shape(30, 576, 192, 1536, 49152, tied=True)  # config.json of SmolLM2-135M-Instruct
# Touvron et al. 2023, arXiv 2302.13971, table 2 (layers and width); feed-forward units and vocabulary from its code.
LLAMA_7B = Shape(32, 4096, 4096, 11008, 32000, tied=False)
LLAMA_65B = Shape(80, 8192, 8192, 22016, 32000, tied=False)
MODELS = {"SmolLM2, 0.13 billion": SMOLLM2_135M, "LLaMA, 6.7 billion": LLAMA_7B, "LLaMA, 65 billion": LLAMA_65B}


@dataclass(frozen=True)
class Hardware:
    """A processor."""

    flops: float  # operations a second at best, for matrices in 16 bits without sparsity
    memory: float  # bytes


# NVIDIA, "H100 Tensor Core GPU" data sheet, column SXM: BF16 1,979 TFLOPS "with sparsity", half of it without; 80 GB;
# NVLink 900 GB/s, which is both directions together. NDR InfiniBand: 400 Gbit/s a port. IEEE 802.3: 10 Gbit/s.
H100 = Hardware(989e12, 80e9)
# Bytes a second that a processor sends to the next while it receives as many.
LINKS = {"NVLink 4": 450e9, "InfiniBand NDR": 50e9, "10-gigabit Ethernet": 1.25e9}
REACH = {"NVLink 4": 8}  # how many GPUs a link joins in an ordinary server; where none is stated, as many as one likes
UTILISATION = 0.4  # of the best rate, assumed; PaLM reached 0.46 (Chowdhery et al. 2022, arXiv 2204.02311, section 4.1)


def forward_flops(shape: Shape, tokens: int, counted: int) -> int:
    """Return the operations of a forward pass without `attention_flops`: 2 for each weight and token that passes it.

    All of `tokens` go through the blocks, and `counted` of them through the output layer.
    """
    require_at_least(0, "tokens", tokens)
    require_at_least(0, "counted", counted)
    return 2 * tokens * shape.block_weights + 2 * counted * shape.output_weights


def step_flops(shape: Shape, tokens: int, counted: int, method: str, rank: int = 8) -> int:
    """Return the operations of a training step.

    The backward pass takes a forward pass's worth for the gradients of what lies between the layers, and another for
    those of the weights, which frozen weights do not need. LoRA's own matrices take 6 for each of their numbers.
    """
    base = forward_flops(shape, tokens, counted)
    if shape.trained_weights(method, rank) == shape.weights:
        return 3 * base
    return 2 * base + 6 * tokens * shape.lora_weights(rank)


def attention_flops(shape: Shape, tokens: int, context: int) -> int:
    """Return the forward operations of attention: each token's query with `context` keys, and as many values."""
    return 4 * shape.layers * tokens * context * shape.width


@dataclass(frozen=True)
class Memory:
    """Bytes on one processor."""

    weights: float
    gradients: float
    optimiser: float
    activations: float

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimiser + self.activations


def step_memory(
    shape: Shape, tokens: int, counted: int, method: str, *, rank: int = 8, bits: int = 32, each: float
) -> Memory:
    """Return the memory of a training step with AdamW, on each processor of a data-parallel team.

    Args:
        tokens: those on this processor.
        counted: those for which the output layer is computed. The loss keeps a probability for each word of the
            vocabulary, in 32 bits.
        bits: 32, or 16 for weights, gradients and activations in bfloat16; then the optimiser has a copy of the trained
            weights in 32 bits beside its two averages. CourseError for any other.
        each: numbers that a block keeps for the backward pass, for each token and unit of width: see `kept_each`.
    """
    if bits not in (16, 32):
        raise CourseError(f"bits is {bits}.", "take 16 or 32.")
    for name, value in {"tokens": tokens, "counted": counted, "each": each}.items():
        require_at_least(0, name, value)
    size, trained = bits // 8, shape.trained_weights(method, rank)
    weights = size * (shape.weights + (0 if method == TRAIN_ALL else trained))
    optimiser = (12 if bits == 16 else 8) * trained
    activations = each * size * tokens * shape.layers * shape.width + 4 * counted * shape.vocabulary
    return Memory(weights, size * trained, optimiser, activations)


def kept_each(shape: Shape, tokens: int, counted: int, activations: float) -> float:
    """Return `each` for `step_memory` from the bytes of activations measured in 32 bits."""
    return (activations - 4 * counted * shape.vocabulary) / (4 * tokens * shape.layers * shape.width)


def ring_bytes(payload: float, n: int) -> float:
    """Return the bytes that each of n processors sends to add up `payload` bytes over all: 2 (n - 1) / n of them."""
    require_at_least(1, "the number of processors", n)
    return 2 * (n - 1) / n * payload


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step, with nothing overlapped."""

    computing: float
    communicating: float

    @property
    def efficiency(self) -> float:
        """The share of the time in which processors compute."""
        return self.computing / (self.computing + self.communicating)


def step_time(shape: Shape, tokens: int, method: str, n: int, *, rank: int = 8, bandwidth: float) -> StepTime:
    """Return the seconds of a step, in 16 bits, of n H100 that share `tokens` tokens, all of which count.

    The bandwidth, in bytes a second, is that of the slowest link of the ring.
    """
    sent = ring_bytes(2 * shape.trained_weights(method, rank), n)
    computing = step_flops(shape, tokens, tokens, method, rank) / (n * H100.flops * UTILISATION)
    return StepTime(computing, sent / bandwidth)
