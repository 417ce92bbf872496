"""Is a real full update of low rank? Its best approximations of rank 1 to 16 (Hu et al. 2021; Aghajanyan et al. 2021).

python studies/update_rank.py
"""

from __future__ import annotations

from runner import Study, main

QUERIES, UPDATES, RATE = 48, 15, 3e-5  # of the rates of `lora_rate`, the best on validation
RANKS = (1, 2, 4, 16)


def approximated(task: str, seed: int) -> dict[str, float]:
    """Train all seven linear matrices of each block in full, then keep only a few directions of every update.

    The seed draws 40 words, and the order of the rows: 15 updates of 8, the same for all. Rank r is the best
    approximation of this rank (singular value decomposition) of each of the 210 updates; rank 0 is the base, "whole"
    what was trained, and "without 4" the update less its best approximation of rank 4. Exact match and loss, in nats
    per token of the answers, are of 48 words that no run trains on.
    """
    import torch
    from torch.nn.functional import cross_entropy

    from rapidadapt_lessons.lm import load_model, load_task
    from rapidadapt_lessons.lora.targets import find_targets
    from rapidadapt_lessons.training.loop import TrainConfig, train
    from rapidadapt_lessons.training.rows import by_row, collate, counted_logits, task_rows

    linear = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    model, tokenizer = load_model()
    episode = load_task(task).episode(40, seed=seed, n_query=QUERIES)
    rows, asked = (task_rows(tokenizer, load_task(task), pairs) for pairs in (episode.support, episode.query))
    weights = [layer.weight for layer in find_targets(model.requires_grad_(False), linear).values()]
    start = [weight.detach().clone() for weight in weights]
    for weight in weights:
        weight.requires_grad_(True)
    train(model, rows, TrainConfig(UPDATES, batch_size=8, lr=RATE, warmup=3, seed=seed), progress=False)
    updates = [weight.detach() - before for weight, before in zip(weights, start)]
    parts = [torch.linalg.svd(update, full_matrices=False) for update in updates]

    @torch.no_grad()
    def measured(name: str, kept: list[torch.Tensor]) -> dict[str, float]:
        for weight, before, update in zip(weights, start, kept):
            weight.copy_(before + update)
        batch = collate(asked)
        logits, targets = counted_logits(model, batch)
        right = [bool(hits.all()) for hits in by_row(logits.argmax(-1) == targets, batch)]
        loss = cross_entropy(logits, targets).item()
        return {f"exact match, {name}": sum(right) / QUERIES, f"loss, {name}": loss}

    best = {r: [u[:, :r] * s[:r] @ v[:r] for u, s, v in parts] for r in (0, *RANKS)}
    found = {}
    for rank, kept in best.items():
        found |= measured(f"rank {rank}", kept)
    found |= measured("whole", updates)
    found |= measured("without 4", [update - kept for update, kept in zip(updates, best[4])])
    shares = {rank: [(s[:rank].square().sum() / s.square().sum()).item() for _, s, _ in parts] for rank in RANKS}
    return found | {f"share of squared length, rank {rank}": sum(s) / len(s) for rank, s in shares.items()}


STUDY = Study(
    name="update_rank",
    question="How much of a full update does its best approximation of low rank do?",
    run=approximated,
    settings=[{"task": task} for task in ("past_tense", "superlatives")],
    seconds=100,
    tolerance={"": 2.5 / QUERIES},  # two queries may round the other way elsewhere
)

if __name__ == "__main__":
    raise SystemExit(main(STUDY, __file__))
