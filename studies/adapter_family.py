"""LoRA and eight relatives, each with rates of its own, trained until validation loss stops falling.

python studies/adapter_family.py

Rates a factor of three apart were tried on seed 0, and each method has the best two. DoRA has one, since its steps take
twice as long and its losses follow LoRA's; prompt tuning has the best of three.
"""

from __future__ import annotations

import math

from runner import Study, main

LORA = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"}
RATIO = 16  # in LoRA+, B's rate over A's (Hayou et al. 2024)
TOKENS = {"num_virtual_tokens": 8}
KINDS = {  # peft's configurations; it has no bottleneck adapters
    "LoRA": ("LoraConfig", LORA),
    "rsLoRA": ("LoraConfig", LORA | {"use_rslora": True}),
    "DoRA": ("LoraConfig", LORA | {"use_dora": True}),
    "PiSSA": ("LoraConfig", LORA | {"init_lora_weights": "pissa_niter_4"}),
    "LoRA+": ("LoraConfig", LORA | {"lora_alpha": 16 * RATIO}),
    "IA3": ("IA3Config", {"target_modules": ["k_proj", "v_proj", "down_proj"], "feedforward_modules": ["down_proj"]}),
    "prefix tuning": ("PrefixTuningConfig", TOKENS),
    "prompt tuning": ("PromptTuningConfig", TOKENS | {"prompt_tuning_init": "TEXT"}),
}
RATES = {
    "LoRA": (3e-4, 1e-3),
    "rsLoRA": (1e-4, 3e-4),
    "DoRA": (3e-4,),
    "PiSSA": (1e-4, 3e-4),
    "LoRA+": (3e-5, 1e-4),
    "IA3": (1e-3, 3e-3),
    "bottleneck": (3e-4, 1e-3),
    "prefix tuning": (3e-3, 1e-2),
    "prompt tuning": (3e-2,),
}
PATIENCE = {"prompt tuning": 8}  # evaluations, three for the others: its losses go up and down on their way


def adapted(model, tokenizer, method: str, instruction: str, seed: int):
    """Return the model with a fresh adapter. Prefix and prompt start as the first eight tokens of the instruction."""
    import peft
    import torch

    from rapidadapt_lessons.lora import inject_bottlenecks

    if method == "bottleneck":
        return inject_bottlenecks(model, size=8, seed=seed)
    kind, options = KINDS[method]
    if method == "prompt tuning":
        options = options | {"prompt_tuning_init_text": instruction, "tokenizer_name_or_path": tokenizer.name_or_path}
    torch.manual_seed(seed)
    model = peft.get_peft_model(model, getattr(peft, kind)(task_type="CAUSAL_LM", **options))
    if method == "prefix tuning":
        peft.initialize_kv_prefix_from_text(model, tokenizer, text=instruction, use_chat_template=False)
    if method == "LoRA+":  # its B is 16 times what is trained here: with B's own gradient, B moves 16 times as far
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.register_hook(lambda gradient: gradient / RATIO)
    return model


def tuned(method: str, lr: float, seed: int) -> dict[str, float]:
    """Train on 40 superlatives, 8 per update. The seed draws the words, the order of the rows and the adapter's start.

    Training ends when the loss on 20 other words hasn't fallen for 15 updates (40 in prompt tuning), or after 100, and
    goes back to the best "updates". Losses are nats per token of the answers; the test takes 30 more words, the same
    for all seeds.
    """
    from rapidadapt_lessons.errors import TrainingDiverged
    from rapidadapt_lessons.lm import load_model, load_task
    from rapidadapt_lessons.training.loop import TrainConfig, train
    from rapidadapt_lessons.training.rows import exact_rows, perplexity, task_rows

    model, tokenizer = load_model()
    task = load_task("superlatives", query_size=50)
    rows = task_rows(tokenizer, task, task.episode(40, seed=seed).support)
    queries = task_rows(tokenizer, task, task.query_set)
    test, validation = queries[:30], queries[30:]
    model = adapted(model, tokenizer, method, task.instruction, seed)
    config = TrainConfig(100, batch_size=8, lr=lr, warmup=3, eval_every=5, patience=PATIENCE.get(method, 3), seed=seed)
    try:
        history = train(model, rows, config, evaluate=lambda m: math.log(perplexity(m, validation, 20)), progress=False)
    except TrainingDiverged:
        return dict.fromkeys(METRICS, math.nan)
    loss, right = math.log(perplexity(model, test, 30)), sum(exact_rows(model, test))
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    best = history.best_step
    return dict(zip(METRICS, (history.evaluations[best], loss, right / len(test), float(best), float(trained))))


METRICS = ("validation loss", "test loss", "exact match", "updates", "trained numbers")

STUDY = Study(
    name="adapter_family",
    question="Does a relative of LoRA beat it, once each has its own learning rate?",
    run=tuned,
    settings=[{"method": method, "lr": lr} for method, rates in RATES.items() for lr in rates],
    seconds=40,
    tolerance={"": 0.03, "exact match": 1.5 / 30, "updates": 5.0},
)

if __name__ == "__main__":
    raise SystemExit(main(STUDY, __file__))
