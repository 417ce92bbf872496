"""Published findings about LoRA, and whether the studies of lessons 3 and 4 agree. The README shows the first three."""

from __future__ import annotations

from claim import Claim
from finding import Finding, lesson_claim
from lora_claims import (
    FULL,
    LORA,
    batch_cost,
    best_rates,
    family_loss,
    forgotten,
    four_less_32,
    sum_less_own,
    task_elsewhere,
)

LORA_FINDINGS = (
    Finding(
        "Hu et al. 2021",
        "section 7.2",
        "A very small rank, even 1, is enough to adapt a model to a task.",
        lesson_claim("one-direction-nearly-enough"),
        "past tenses and superlatives, accuracy of the update's best rank-1 approximation minus the full update's",
        note="They train LoRA at several ranks. Here every linear layer is trained in full, and cut down to rank 1 "
        "afterwards.",
    ),
    Finding(
        "Schulman et al. 2025",
        "learning-rate sweeps",
        "LoRA's best learning rate is about ten times that of full fine-tuning.",
        Claim(
            "lora-best-rate-ten-times",
            "4.1",
            "On a scale of powers of ten, the ratio of the best rates is nearer to 10 than to 1 or 100.",
            "lora_rate",
            lesson_claim("lora-rate-ten-times").value,
            above=0.5,
            below=1.5,
        ),
        "LoRA's best rate over full fine-tuning's, as a power of ten (1 is ten times)",
        note="At least ten times is clear. Five seeds can't say whether the ratio is closer to 10 or to 100; for short "
        "runs the authors report about 15.",
    ),
    Finding(
        "Biderman et al. 2024",
        "section 4.2",
        "LoRA forgets less than full fine-tuning.",
        Claim(
            "lora-forgets-less",
            "4.4",
            "Each at its own best rate, LoRA forgets less.",
            "learns_less",
            lambda records: forgotten(best_rates(records), FULL) - forgotten(best_rates(records), LORA),
            above=0.0,
        ),
        "rise of the loss on a manual and on dialogue, full fine-tuning's minus LoRA's, nats per token",
        note="The opposite is seen here, also where both have learned equally much. They train on billions of "
        "tokens; thirty steps of two rows may be too few for full fine-tuning to move in directions that LoRA lacks.",
    ),
    Finding(
        "Biderman et al. 2024",
        "section 4.2",
        "LoRA forgets less than full fine-tuning.",
        Claim(
            "lora-forgets-less-on-a-task",
            "4.4",
            "After superlatives, each at its best rate, LoRA leaves the manual with a lower perplexity.",
            "lora_rate",
            lambda records: task_elsewhere(records, LORA, FULL),
            below=0.0,
        ),
        "superlatives, perplexity of a manual after LoRA minus after full fine-tuning",
        note="The opposite here too, although both end with the same loss on the task.",
    ),
    Finding(
        "Biderman et al. 2024",
        "section 4.1",
        "LoRA learns less of a new domain than full fine-tuning.",
        lesson_claim("lora-learns-less-of-a-domain"),
        "licences, test loss after 30 steps with LoRA minus the same with full fine-tuning, nats per token",
        note="60 rows of 64 tokens here, each method at the best of three rates; 20 billion tokens in the paper.",
    ),
    Finding(
        "Aghajanyan et al. 2021",
        "table 1",
        "Fine-tuning needs only a few hundred directions of the space of all weights.",
        lesson_claim("four-directions-keep-accuracy"),
        "accuracy with four directions of each matrix's update minus that with all of them",
        digits=3,
        note="They train in a random subspace, for all layers at once. Here the directions are the update's own, "
        "matrix by matrix: 840 of them.",
    ),
    Finding(
        "Schulman et al. 2025",
        "learning-rate sweeps",
        "The best rate hardly depends on the rank, and a small data set is learned just as well at a low rank.",
        lesson_claim("lora-rank-hardly-matters"),
        "loss on new words at rank 64 minus loss at rank 1, nats per token",
    ),
    Finding(
        "Dettmers et al. 2023",
        "table 4",
        "An adapter on a base in 4 bits gets as far as one on the base in full precision.",
        Claim(
            "four-bits-loss-as-low",
            "4.6",
            "In 4 bits LoRA's loss is no higher.",
            "four_bits",
            lambda records: four_less_32(records, "test loss after"),
            below=0.0,
        ),
        "superlatives, loss per token on new words on a base in 4 bits minus the same in 32 bits, nats",
        note="The gap is a fortieth of what either has learned. Their models have 7 to 65 billion weights, and lose "
        "less to rounding; the copy in 32 bits came from another 4-bit format here.",
    ),
    Finding(
        "Ilharco et al. 2023",
        "section 4",
        "Adding up what two fine-tuned models changed gives one model that keeps most of both tasks.",
        Claim(
            "sum-keeps-nine-tenths",
            "4.7",
            "The sum of two adapters loses less than ten points to the task's own adapter.",
            "merged_adapters",
            sum_less_own,
            above=-0.1,
        ),
        "six pairs of tasks, accuracy of the plain sum of two adapters minus the own adapter's",
        note="They add whole fine-tuned models, and tune the weights of the sum.",
    ),
    Finding(
        "Schulman et al. 2025",
        "layers where LoRA is applied",
        "LoRA on attention alone is worse, even at equal numbers trained.",
        lesson_claim("attention-alone-is-worse"),
        "superlatives, test loss beside attention alone minus beside all linear layers, nats per token",
    ),
    Finding(
        "Schulman et al. 2025",
        "layers where LoRA is applied",
        "LoRA on the feed-forward layers alone does as well as on all layers.",
        lesson_claim("feed-forward-is-enough"),
        "superlatives, test loss beside the feed-forward layers alone minus beside all, nats per token",
    ),
    Finding(
        "Schulman et al. 2025",
        "batch size",
        "LoRA tolerates large batches less well than full fine-tuning.",
        Claim(
            "large-batch-costs-lora-more",
            "4.3",
            "One step per 40 words instead of five costs LoRA more than full fine-tuning.",
            "lora_batch",
            lambda records: batch_cost(records, LORA) - batch_cost(records, FULL),
            above=0.0,
        ),
        "superlatives, loss that six steps of 40 cost over thirty of 8, LoRA's minus full fine-tuning's, nats",
        note="Five seeds and 40 words can't show a difference as small as this one.",
    ),
    Finding(
        "Lester et al. 2021",
        "figure 1",
        "Prompt tuning falls behind full fine-tuning except in models of billions of weights.",
        Claim(
            "prompt-tuning-behind",
            "4.5",
            "Prompt tuning ends more than 0.1 nats per token behind LoRA.",
            "adapter_family",
            lambda records: family_loss(records, "prompt tuning") - family_loss(records, "LoRA"),
            above=0.1,
        ),
        "superlatives, loss per token of prompt tuning minus LoRA's, nats",
        note="The task is narrow, the prompt starts from its instruction, and LoRA stands in for full fine-tuning, "
        "with which it ties here (4.1).",
    ),
    Finding(
        "Liu et al. 2024",
        "table 1",
        "DoRA is more accurate than LoRA.",
        Claim(
            "dora-beats-lora",
            "4.5",
            "DoRA's loss is lower than LoRA's.",
            "adapter_family",
            lambda records: family_loss(records, "LoRA") - family_loss(records, "DoRA"),
            above=0.0,
        ),
        "superlatives, LoRA's loss per token minus DoRA's, nats",
        note="On 40 words the two end level. Their models are 50 times larger, and read thousands of examples.",
    ),
    Finding(
        "Hayou et al. 2024",
        "figure 3",
        "LoRA+, with a higher rate for B than for A, ends with a lower loss than LoRA.",
        Claim(
            "lora-plus-beats-lora",
            "4.5",
            "LoRA+'s loss is lower than LoRA's.",
            "adapter_family",
            lambda records: family_loss(records, "LoRA") - family_loss(records, "LoRA+"),
            above=0.0,
        ),
        "superlatives, LoRA's loss per token minus LoRA+'s, nats",
        note="B's rate is 16 times A's, and A's own rate is tuned for each method.",
    ),
)
