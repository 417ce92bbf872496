"""Four continents to choose from: a prompt, the same calibrated, and LoRA with tuned updates, on the same countries.

python studies/choose_continents.py
"""

from __future__ import annotations

from runner import Study, main

QUERIES, VALIDATION = 48, 24
METHODS = ("few-shot", "calibrated few-shot", "LoRA")


def chosen(method: str, examples: int, seed: int) -> dict[str, float]:
    """Return the share of 48 countries whose continent is the likeliest label. The seed draws the examples.

    LoRA is trained for up to 16 updates; after how many it is judged is told by the loss on 24 countries for
    validation, in nats per token. Somebody with 4 examples has no such countries: this is to LoRA's favour.
    """
    import math

    from rapidadapt_lessons.choosing import methods
    from rapidadapt_lessons.lm import load_model, load_task
    from rapidadapt_lessons.prompting.answers import answered_right
    from rapidadapt_lessons.training.loop import TrainConfig
    from rapidadapt_lessons.training.rows import perplexity, task_rows

    model, tokenizer = load_model()
    task = load_task("continents", query_size=QUERIES + VALIDATION)
    episode = task.episode(examples, seed=seed, balanced=True)
    queries = episode.query[:QUERIES]
    if "few-shot" in method:
        calibrated = method == methods.CALIBRATED
        trial = methods.prompt_trial(model, tokenizer, task, episode.support, queries, calibrated=calibrated)
        return {"accuracy": trial.quality}
    rows, held_out = (task_rows(tokenizer, task, part) for part in (episode.support, episode.query[QUERIES:]))
    found = {"validation loss": math.inf}

    def judge(model) -> float:
        loss = math.log(perplexity(model, held_out))
        if loss < found["validation loss"]:
            right = answered_right(model, tokenizer, task, queries)
            found.update({"validation loss": loss, "accuracy": sum(right) / QUERIES})
        return loss

    config = TrainConfig(16, batch_size=8, lr=1e-3, eval_every=4, seed=seed)
    _, history = methods.train_adapter(model, rows, config, evaluate=judge)
    return found | {"updates": float(min(history.evaluations, key=history.evaluations.get))}


STUDY = Study(
    name="choose_continents",
    question="For a choice between labels the model knows, does training beat a calibrated prompt?",
    run=chosen,
    settings=[{"method": method, "examples": n} for n in (4, 16) for method in METHODS],
    seconds=10,
    tolerance={"accuracy": 2.5 / QUERIES, "validation loss": 0.1, "updates": 4.0},
    seeds=6,
)

if __name__ == "__main__":
    raise SystemExit(main(STUDY, __file__))
