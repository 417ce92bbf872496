"""Streams, the loop over them, every method on a whole model and on LoRA, and a kill half-way."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import nn

from rapidadapt_lessons.continual.adapters import Averaged, PerTask
from rapidadapt_lessons.continual.digits import SCENARIOS, DigitScenario, digit_network, permuted_digits, split_digits
from rapidadapt_lessons.continual.distillation import LwF, distillation_loss
from rapidadapt_lessons.continual.ewc import EWC
from rapidadapt_lessons.continual.replay import Replay
from rapidadapt_lessons.continual.stream import (
    Joint,
    Method,
    Stream,
    fit,
    run_stream,
    set_trainable_state,
    swapped,
    trainable_state,
    validation_stream,
)
from rapidadapt_lessons.errors import AdapterMismatch, CheckpointMismatch, CourseError, TrainingDiverged
from rapidadapt_lessons.lora import layers as lora
from rapidadapt_lessons.training.data import Experience
from rapidadapt_lessons.training.loop import TrainConfig

CONFIG = TrainConfig(steps=60, batch_size=32, lr=3e-3)
METHODS = [
    Method(), Joint(), Replay(60), EWC(100.0), EWC(100.0, online=True), LwF(),
    PerTask(), PerTask("centroid"), Averaged(),
]  # fmt: skip


def short(stream: Stream, count: int = 3) -> Stream:
    return replace(stream, experiences=stream.experiences[:count])


def frozen(state: dict) -> dict:
    return {name: value.clone() for name, value in state.items()}


# Streams.


def test_a_class_that_is_tested_before_it_is_trained_is_refused():
    low, high = split_digits().experiences[:2]
    mixed = Experience("0, 1, and a 3", low.train, (*low.test, high.test[-1]))
    with pytest.raises(CourseError, match="measured on the class 3, which has not been trained by then"):
        Stream("digits", (mixed, high), DigitScenario())
    Stream("digits", (high, replace(mixed, name="after")), DigitScenario())  # trained before: all right


@pytest.mark.parametrize(
    "experiences, message",
    [
        ((), "no experiences in the stream 'bad'"),
        ((Experience("a", (1,), (1,)), Experience("a", (2,), (2,))), "two experiences of one name"),
        ((Experience("a", (), (1,)),), "0 examples to learn"),
        ((Experience("a", (1,), ()),), "0 to test on"),
    ],
)
def test_a_stream_that_cannot_be_learned_or_measured_is_refused(experiences, message):
    with pytest.raises(CourseError, match=message):
        Stream("bad", experiences, DigitScenario())


def test_the_fingerprint_changes_with_a_single_pixel():
    stream = short(split_digits(), 1)
    experience = stream.experiences[0]
    first = experience.train[0]
    pixels = (first.pixels[0] + 1e-9, *first.pixels[1:])
    train = (first._replace(pixels=pixels), *experience.train[1:])
    other = replace(stream, experiences=(replace(experience, train=train),))
    assert stream.fingerprint() == short(split_digits(), 1).fingerprint() != other.fingerprint()


def test_settings_are_chosen_on_training_examples_that_are_not_trained_on():
    stream = short(split_digits(), 2)
    chosen_on = validation_stream(stream, 0.25)
    assert chosen_on.name == "split digits, class-incremental, validation" and chosen_on.names == stream.names
    for new, old in zip(chosen_on.experiences, stream.experiences):
        assert new.train + new.test == old.train and len(new.test) == len(old.train) // 4


@pytest.mark.parametrize("share", [1.0, 1.5, 0.0, float("nan")])
def test_a_share_that_makes_no_sense_is_refused(share):
    with pytest.raises(CourseError, match=f"a share of {share}"):
        validation_stream(short(split_digits(), 1), share)


def test_an_experience_of_one_example_cannot_be_split():
    train = split_digits().experiences[0].train
    single = Experience("a", train[:1], train[:1])
    with pytest.raises(CourseError, match="experience 'a' has 1 examples"):
        validation_stream(Stream("short", (single,), DigitScenario()))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_loss_and_logits_come_from_one_forward_pass_and_are_the_same(scenario):
    stream, model = split_digits(scenario), digit_network()
    examples, calls = stream.experiences[2].train[:20], []
    model.register_forward_hook(lambda *_: calls.append(1))
    loss, logits = stream.scenario.loss_and_logits(model, examples)
    assert len(calls) == 1
    assert loss.item() == stream.scenario.loss(model, examples).item()
    assert torch.equal(logits, stream.scenario.logits(model, examples))


# The loop.


def test_the_matrix_holds_the_score_on_every_experience_after_every_experience():
    stream, model, seen = short(permuted_digits(2)), digit_network(), []
    before = [stream.scenario.score(model, experience.test) for experience in stream.experiences]

    class Watched(Method):
        def learn(self, model, stream, index, config):
            super().learn(model, stream, index, config)
            seen.append([stream.scenario.score(model, experience.test) for experience in stream.experiences])

    result = run_stream(Watched(), model, stream, CONFIG)
    assert result.matrix.tolist() == seen
    assert result.before.tolist() == before
    assert result.experiences == ("order 1", "order 2") and len(result.seconds) == 2


def test_what_is_known_so_far_is_reported_after_each_experience():
    seen = []
    result = run_stream(Method(), digit_network(), short(permuted_digits(2)), CONFIG, on_experience=seen.append)
    assert [int(torch.isfinite(so_far.matrix).all(1).sum()) for so_far in seen] == [0, 1, 2]
    assert torch.equal(seen[-1].matrix, result.matrix) and torch.equal(seen[1].matrix[0], result.matrix[0])


def test_the_same_seed_gives_the_same_matrix_and_another_seed_another():
    stream = short(permuted_digits(2))
    runs = [run_stream(Replay(20), digit_network(), stream, replace(CONFIG, seed=seed)) for seed in (0, 0, 1)]
    assert torch.equal(runs[0].matrix, runs[1].matrix)
    assert not torch.equal(runs[0].matrix, runs[2].matrix)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_method_starts_afresh_with_every_run(method):
    stream = short(permuted_digits(2))
    runs = [run_stream(method, digit_network(), stream, replace(CONFIG, steps=10)) for _ in range(2)]
    assert torch.equal(runs[0].matrix, runs[1].matrix)
    assert runs[0].stored_numbers == runs[1].stored_numbers


def test_a_loss_that_explodes_is_refused():
    with pytest.raises(TrainingDiverged):
        run_stream(Method(), digit_network(), short(permuted_digits(2)), replace(CONFIG, lr=1e25))


def test_a_loss_of_ones_own_is_the_mean_over_all_rows_of_an_update():
    """Also where they do not fit into one forward pass, and the last piece is smaller."""
    stream = permuted_digits(1)
    ends = []
    for batch_size, accumulate in ((12, 1), (4, 3), (5, 2)):
        model = digit_network()
        config = TrainConfig(steps=1, batch_size=batch_size, accumulate=accumulate, max_grad_norm=1e9, lr=1e-3)
        examples = list(stream.experiences[0].train[: batch_size * accumulate])
        losses = fit(model, stream.scenario, examples, config)
        assert losses[0] == pytest.approx(stream.scenario.loss(digit_network(), examples).item(), rel=1e-5)
        ends.append(model[2].bias.detach())
    assert torch.allclose(ends[0], ends[1], atol=1e-6)


def test_a_penalty_in_the_loss_reaches_the_gradient():
    stream, model = permuted_digits(1), digit_network()
    loss = lambda model, examples: 0 * stream.scenario.loss(model, examples) + model[0].bias.sum()  # noqa: E731
    before = trainable_state(model)
    fit(model, stream.scenario, stream.experiences[0].train, TrainConfig(steps=1, lr=0.5), loss)
    after = trainable_state(model)
    assert torch.allclose(after["0.bias"], before["0.bias"] - 0.5)
    assert torch.equal(after["2.bias"], before["2.bias"])


# The methods, on a whole model.


@pytest.fixture(scope="module")
def permuted() -> Iterator[dict]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    stream = permuted_digits(4)
    methods = [Method(), Joint(), Replay(100), EWC(20.0), EWC(20.0, online=True), PerTask(), PerTask("centroid")]
    config = replace(CONFIG, steps=100)
    yield {method.name: run_stream(method, digit_network(), stream, config) for method in methods}
    torch.set_num_threads(threads)


def test_fine_tuning_learns_each_experience_and_forgets_it(permuted):
    plain = permuted["fine-tuning"]
    assert plain.plasticity > 0.85 and plain.bwt < -0.2


@pytest.mark.parametrize("name", ["joint training", "replay", "EWC", "online EWC"])
def test_the_repairs_forget_less(permuted, name):
    assert permuted[name].forgetting < permuted["fine-tuning"].forgetting - 0.1


def test_joint_training_is_the_best_of_those_that_share_their_weights(permuted):
    others = [permuted[name].acc for name in ("fine-tuning", "replay", "EWC", "online EWC")]
    assert permuted["joint training"].acc > max(others)


def test_a_model_for_each_experience_forgets_nothing_when_the_experience_is_given(permuted):
    assert permuted["adapter each"].bwt == 0 and permuted["adapter each"].forgetting == 0


def test_centroids_tell_permutations_apart(permuted):
    assert permuted["adapter each, centroid"].acc > permuted["adapter each"].acc - 0.03


def test_joint_training_starts_afresh_and_takes_its_share_of_updates(monkeypatch):
    from rapidadapt_lessons.continual import stream as continual

    seen = []
    stream, model = short(permuted_digits(3)), digit_network()
    start = frozen(trainable_state(model))

    def watched(model, scenario, examples, config, loss=None):
        same = all(torch.equal(value, start[name]) for name, value in trainable_state(model).items())
        seen.append((same, len(examples), config.steps))
        return plain(model, scenario, examples, config, loss)

    plain = continual.fit
    monkeypatch.setattr(continual, "fit", watched)
    run_stream(Joint(), model, stream, replace(CONFIG, steps=5))
    size = len(stream.experiences[0].train)
    assert seen == [(True, size, 5), (True, 2 * size, 10), (True, 3 * size, 15)]


def test_stored_examples_and_numbers_are_those_kept():
    stream, numbers = short(permuted_digits(3)), sum(p.numel() for p in digit_network().parameters())
    size = sum(len(experience.train) for experience in stream.experiences)
    expected = {
        "fine-tuning": (0, 0), "joint training": (size, 0), "replay": (60, 0),
        "EWC": (0, 6 * numbers), "online EWC": (0, 2 * numbers), "LwF": (0, numbers), "adapter each": (0, 3 * numbers),
        "adapter each, centroid": (0, 3 * numbers + 3 * 64), "average": (0, 3 * numbers),
    }  # fmt: skip
    for method in METHODS:
        result = run_stream(method, digit_network(), stream, replace(CONFIG, steps=2))
        assert (result.stored_examples, result.stored_numbers) == expected[method.name], method.name


# LwF.


def test_distillation_is_kullback_and_leiblers_divergence_times_the_temperature_squared():
    student, teacher = torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 2.0], [0.0, 0.0]])
    p, q = (teacher[0] / 2).softmax(0), (student[0] / 2).softmax(0)
    by_hand = 4 * (p * (p / q).log()).sum() / 2  # the second row agrees; the mean is over two rows
    assert distillation_loss(student, teacher, 2.0).item() == pytest.approx(by_hand.item())


def test_the_teacher_is_the_model_before_the_experience_and_only_over_classes_that_it_knows():
    stream, spied = short(split_digits(), 2), []

    class Spy(DigitScenario):
        def logits(self, model, examples):
            out = super().logits(model, examples)
            if not torch.is_grad_enabled():
                spied.append((out.clone(), examples))
            return out

    method, model = LwF(), digit_network()
    stream = replace(stream, scenario=Spy())
    method.start(model, stream, 0)
    method.learn(model, stream, 0, replace(CONFIG, steps=20))
    assert method.known == [0, 1]
    old = digit_network()
    set_trainable_state(old, trainable_state(model))
    spied.clear()
    method.learn(model, stream, 1, replace(CONFIG, steps=20))
    assert method.known == [0, 1, 2, 3] and len(spied) == 20
    for said, examples in spied:
        assert torch.allclose(said, DigitScenario().logits(old, examples))


def test_the_teacher_answers_without_dropout():
    answers = []

    class Spy(DigitScenario):
        def logits(self, model, examples):
            if not torch.is_grad_enabled():
                answers.append(model.training)
            return super().logits(model, examples)

        def loss_and_logits(self, model, examples):
            answers.append(model.training)
            return super().loss_and_logits(model, examples)

    method, model, stream = LwF(), digit_network(), replace(short(permuted_digits(2), 2), scenario=Spy())
    method.start(model, stream, 0)
    for index in (0, 1):
        method.learn(model, stream, index, replace(CONFIG, steps=3))
    assert answers[-6:] == [False, True] * 3


def test_lwf_of_strength_zero_is_fine_tuning():
    stream = short(permuted_digits(2))
    results = [run_stream(method, digit_network(), stream, CONFIG) for method in (LwF(strength=0.0), Method())]
    assert torch.equal(results[0].matrix, results[1].matrix)


def test_lwf_keeps_the_old_answers_closer():
    stream = short(split_digits("task-incremental"), 2)

    def drift(method):
        model = digit_network()
        method.start(model, stream, 0)
        method.learn(model, stream, 0, CONFIG)
        before = stream.scenario.logits(model, stream.experiences[0].test)[:, :2].detach()
        method.learn(model, stream, 1, CONFIG)
        after = stream.scenario.logits(model, stream.experiences[0].test)[:, :2].detach()
        return distillation_loss(after, before).item()

    assert drift(LwF(strength=5.0)) < 0.5 * drift(Method())


@pytest.mark.parametrize("arguments", [{"strength": -1}, {"strength": float("nan")}, {"temperature": 0}])
def test_lwf_refuses_values_that_make_no_sense(arguments):
    with pytest.raises(CourseError, match=next(iter(arguments))):
        LwF(**arguments)


# An adapter for each experience, and averages.


def with_lora(seed: int = 0) -> nn.Module:
    return lora.inject(digit_network(seed), lora.LoRAConfig(rank=4, target_modules=("0", "2")), seed=seed)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_method_trains_lora_alone_and_leaves_the_base_as_it_was(method):
    model = with_lora()
    base = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    stream = short(permuted_digits(2))
    result = run_stream(method, model, stream, replace(CONFIG, steps=100, lr=1e-2))
    assert all(torch.equal(p, base[name]) for name, p in model.named_parameters() if not p.requires_grad)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == set(lora.adapter_state(model))
    assert all(layer.lora_A.shape[0] == 4 for layer in lora.lora_layers(model).values())
    assert result.matrix[0, 0] > result.before[0] + 0.4


def test_the_average_of_adapters_is_the_mean_of_their_updates():
    model, stream, method = with_lora(), short(permuted_digits(3)), Averaged()
    run_stream(method, model, stream, replace(CONFIG, steps=20, lr=1e-2))
    deltas = []
    for adapter in method.adapters:
        lora.set_adapter_state(model, adapter)
        deltas.append({name: layer.delta() for name, layer in lora.lora_layers(model).items()})
    with swapped(model, method.average(model)):
        for name, layer in lora.lora_layers(model).items():
            mean = sum(delta[name] for delta in deltas) / 3
            assert torch.allclose(layer.delta(), mean, atol=1e-6) and mean.abs().max() > 0


def test_the_average_of_whole_models_is_the_mean_of_their_weights():
    model, stream, method = digit_network(), short(permuted_digits(3)), Averaged()
    run_stream(method, model, stream, replace(CONFIG, steps=20))
    for name, value in method.average(model).items():
        assert torch.allclose(value, torch.stack([adapter[name] for adapter in method.adapters]).mean(0), atol=1e-6)


def test_every_adapter_starts_from_the_same_weights(monkeypatch):
    """So that the order of the experiences cannot matter to any of them, and their updates can be averaged."""
    from rapidadapt_lessons.continual import adapters

    model, starts = digit_network(), []
    monkeypatch.setattr(adapters, "fit", lambda *given: (starts.append(trainable_state(model)), fit(*given))[1])
    run_stream(PerTask(), model, short(permuted_digits(3)), replace(CONFIG, steps=5))
    assert len(starts) == 3
    for name, value in trainable_state(digit_network()).items():
        assert all(torch.equal(state[name], value) for state in starts)


def test_routing_looks_at_the_input_alone():
    model, stream, method = digit_network(), short(split_digits(), 3), PerTask("centroid")
    run_stream(method, model, stream, replace(CONFIG, steps=5))
    images = [digit for experience in stream.experiences for digit in experience.test]
    relabelled = [digit._replace(label=9 - digit.label) for digit in images]
    routes = method.route(model, stream.scenario, images)
    assert routes == method.route(model, stream.scenario, relabelled) and set(routes) == {0, 1, 2}


def test_routers_say_what_they_cannot_do():
    stream, model = short(split_digits(), 2), digit_network()
    with pytest.raises(CourseError, match="no router 'magic'"):
        PerTask("magic")
    with pytest.raises(CourseError, match="no adapters to route to"):
        PerTask("centroid").route(model, stream.scenario, stream.experiences[0].test)
    with pytest.raises(CourseError, match="no adapters to average"):
        Averaged().average(model)
    oracle = PerTask()
    run_stream(oracle, model, stream, replace(CONFIG, steps=1))
    with pytest.raises(CourseError, match="chooses nothing itself"):
        oracle.route(model, stream.scenario, stream.experiences[0].test)
    with pytest.raises(CourseError, match='use the router "centroid"'):
        run_stream(PerTask("surprise"), model, stream, replace(CONFIG, steps=1))


# What is trained.


def test_swapped_weights_are_back_after_an_error():
    model = digit_network()
    before, zeros = frozen(trainable_state(model)), {n: torch.zeros_like(p) for n, p in trainable_state(model).items()}
    with pytest.raises(KeyError), swapped(model, zeros):
        assert not any(p.any() for p in model.parameters())
        raise KeyError
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


def test_weights_of_another_model_are_refused_and_change_nothing():
    model = digit_network()
    before = frozen(trainable_state(model))
    with pytest.raises(AdapterMismatch):
        set_trainable_state(model, trainable_state(digit_network(1, hidden=32)))
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


def test_a_model_with_nothing_to_train_is_refused():
    with pytest.raises(CourseError, match="requires a gradient"):
        run_stream(Method(), digit_network().requires_grad_(False), short(permuted_digits(1)), CONFIG)


# A run that was killed.

KILLED = """
import json, os, signal, sys
import torch
from dataclasses import replace
from pathlib import Path
from rapidadapt_lessons.continual.adapters import Averaged, PerTask
from rapidadapt_lessons.continual.stream import Joint, Method, run_stream
from rapidadapt_lessons.continual.digits import DigitScenario, digit_network, permuted_digits
from rapidadapt_lessons.continual.distillation import LwF
from rapidadapt_lessons.continual.ewc import EWC
from rapidadapt_lessons.continual.replay import Replay
from rapidadapt_lessons.training.loop import TrainConfig

torch.set_num_threads(1)

class Killer(DigitScenario):
    left = 7
    def logits(self, model, examples):  # every loss goes through here
        self.left -= any(id(example) in third for example in examples)
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().logits(model, examples)

stream, config = permuted_digits(4), TrainConfig(steps=15, batch_size=16, lr=3e-3, seed=5)
third = {id(example) for example in stream.experiences[2].train}
methods = [Method(), Joint(), Replay(30), EWC(100.0), EWC(100.0, online=True, decay=0.9),
           LwF(), PerTask(), PerTask("centroid"), Averaged()]
found = {}
for number, method in enumerate(methods):
    whole = run_stream(method, digit_network(), stream, config)
    path = Path(sys.argv[1]) / str(number)
    child = os.fork()
    if not child:  # dies in the middle of training on the third experience
        run_stream(method, digit_network(), replace(stream, scenario=Killer()), config, checkpoint=path)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    rows = []
    resumed = run_stream(method, digit_network(9), stream, config, checkpoint=path,
                         on_experience=lambda so_far: rows.append(int(torch.isfinite(so_far.matrix).all(1).sum())))
    found[method.name] = {
        "signal": os.WTERMSIG(status), "rows": rows, "resumed": resumed.matrix.tolist(), "whole": whole.matrix.tolist(),
        "before": [resumed.before.tolist(), whole.before.tolist()],
        "stored": [[r.stored_examples, r.stored_numbers] for r in (resumed, whole)],
    }
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> dict:
    where = tmp_path_factory.mktemp("streams")
    done = subprocess.run([sys.executable, "-c", KILLED, str(where)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.parametrize("name", [method.name for method in METHODS])
def test_a_stream_killed_half_way_resumes_to_the_same_matrix(killed, name):
    """The resumed run begins with another network, so whatever is not in the checkpoint shows."""
    run = killed[name]
    assert run["signal"] == 9
    assert run["rows"] == [2, 3, 4], "two experiences came from the checkpoint"
    assert run["resumed"] == run["whole"]
    assert run["before"][0] == run["before"][1]
    assert run["stored"][0] == run["stored"][1]


@pytest.mark.parametrize(
    "other, message",
    [
        ({"method": EWC()}, "its method is replay, this run's is EWC"),
        ({"method": Replay(31)}, "its method's settings is .*30.* this run's is .*31"),
        ({"stream": short(permuted_digits(3, seed=1), 2)}, "its stream is permuted digits"),
        ({"config": replace(CONFIG, steps=3, seed=8)}, "its config is"),
        ({"model": digit_network(hidden=8)}, "its shapes is"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_kept(tmp_path, other, message):
    path = tmp_path / "stream"
    run = {"method": Replay(30), "model": digit_network(), "stream": short(permuted_digits(2), 2)}
    run["config"] = replace(CONFIG, steps=3)
    run_stream(**run, checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(CheckpointMismatch, match=message):
        run_stream(**(run | other), checkpoint=path)
    assert path.read_bytes() == before
