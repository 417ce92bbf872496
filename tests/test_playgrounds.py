"""The playgrounds: a reader's own text, called directly, also at bad values. The model ends as it was."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import IPython.display
import nbformat
import pytest
import torch

from rapidadapt_lessons.choosing import methods
from rapidadapt_lessons.choosing.playground import methods_playground
from rapidadapt_lessons.continual.playground import own_experiences, stream_playground
from rapidadapt_lessons.continual.stream import trainable_state
from rapidadapt_lessons.errors import BadData, BadPrompt, CourseError
from rapidadapt_lessons.lm.tasks import Example
from rapidadapt_lessons.lora import layers as lora
from rapidadapt_lessons.lora import playground as the_playground
from rapidadapt_lessons.lora.playground import lora_playground
from rapidadapt_lessons.meta import landscape, landscape_figures, maml
from rapidadapt_lessons.prompting import own_text
from rapidadapt_lessons.prompting.calibration import content_free_prior
from rapidadapt_lessons.prompting.own_text import read_lines
from rapidadapt_lessons.prompting.playground import prompt_playground
from rapidadapt_lessons.prompting.prompts import Template, build_prompt
from rapidadapt_lessons.prompting.scoring import count_tokens, label_logprobs, score_continuations
from rapidadapt_lessons.scaling import cost_model, figures
from rapidadapt_lessons.show.intervals import wilson
from rapidadapt_lessons.show.widgets import on_demand, render, text_box
from rapidadapt_lessons.training.rows import text_rows

OPPOSITES = "hot, cold\nbig, small\nearly, late\nfull, empty"
FRENCH = "hot, chaud\nbig, grand\nfull, plein"
MOODS = "I love it, good\nIt broke at once, bad\nThe best gift ever, good"
ODD = ["$", "$x$ costs $5", "日本語", "<b>&amp;</b>", "{x} {y}", "a\u2028b \x00 \u202e", "🙂" * 5, "a" * 200]
HALF = "\ud800"


def alts(html: str) -> list[str]:
    return [unescape(text) for text in re.findall(r'<img alt="([^"]*)" src="data:image/png;base64,', html)]


def rows(html: str) -> list[list[str]]:
    """Return the cells of all rows of all tables, without their heads."""
    found = [row for row in re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL) if "<th " not in row]
    cells = [[unescape(cell) for cell in re.findall(r"<td [^>]*>(.*?)</td>", row, re.DOTALL)] for row in found]
    return [row for row in cells if row]


# Pairs


def test_a_line_is_a_pair_and_its_last_comma_counts():
    text = " cat ,  cats \n\nyes, we are open, good\r\n\n大, 小"
    assert read_lines(text) == [Example("cat", "cats"), Example("yes, we are open", "good"), Example("大", "小")]
    assert read_lines(" \n ") == []


@pytest.mark.parametrize("odd", ODD)
def test_odd_characters_are_kept(odd):
    assert read_lines(f"{odd}, y") == [Example(" ".join(odd.split()), "y")]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("cat, cats\ndog", "line 2 is 'dog'"),
        ("cat,", "line 1 is 'cat,'"),
        (", cats", "line 1"),
        ("a, b\n" * 33, "33 pairs; 32 is the most"),
        (f"a{HALF}, b", "character 2 is half of one"),
    ],
)
def test_what_is_no_pair_is_told_with_its_line(text, problem):
    with pytest.raises(BadData, match=problem):
        read_lines(text)


# Lesson 1


def test_the_prompt_is_shown_and_every_form_answers_as_scoring_says(real_model):
    html = prompt_playground(*real_model, "{x} -> {y}", OPPOSITES, "happy")
    prompt = build_prompt("happy", read_lines(OPPOSITES))
    assert f"{count_tokens(real_model[1], prompt.text)} tokens" in html and "early -&gt; late\nfull -&gt; empty" in html
    found = {name: cells for name, *cells in rows(html)}
    assert next(iter(found)) == "your template" and "as chat" in found and "without the examples" in found
    assert "as arrow" not in found, "the same prompt under two names"
    tokens, answer, p = found["your template"]
    ends = [" " + answer.strip("'") + end for end in ("\n", real_model[1].eos_token)]
    scored = score_continuations(*real_model, [(prompt.text, end) for end in ends])
    assert int(tokens) == count_tokens(real_model[1], prompt.text)
    assert float(p) == pytest.approx(sum(torch.tensor(s.total).exp().item() for s in scored), abs=0.006)
    assert "probability of the next token" in alts(html)[0]


def test_labels_are_compared_in_every_form_and_calibrated(real_model):
    template, query = Template("Message: {x}\nMood: {y}", separator="\n\n"), "It came too late, and $5 were missing"
    html = prompt_playground(*real_model, template.pattern, MOODS, query, "good, bad")
    found = {name: [float(cell.split()[0]) for cell in cells] for name, _, *cells in rows(html)}
    support = read_lines(MOODS)
    plain = label_logprobs(*real_model, [build_prompt(query, support, template)], ["good", "bad"]).softmax(-1)
    prior = content_free_prior(*real_model, support, ["good", "bad"], template)
    calibrated = plain[0] / prior / (plain[0] / prior).sum()
    assert found["your template"] == pytest.approx(plain[0].tolist(), abs=0.006)
    assert found["your template, calibrated"] == pytest.approx(calibrated.tolist(), abs=0.006)
    assert all(sum(values) == pytest.approx(1, abs=0.011) for values in found.values())
    assert html.count("✓") == len(found)


def test_zero_shot_has_no_examples_to_turn_round(real_model):
    names = [name for name, *_ in rows(prompt_playground(*real_model, "{x} means {y}", "", "chat"))]
    assert names[0] == "your template" and not any("examples" in name for name in names)


@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")
@pytest.mark.parametrize("odd", ["$", "日本語 $x$ 🙂", "<b>&amp;</b> {x} {y}", "a\u2028b \x00 \u202e"])
def test_odd_text_is_shown_as_it_is(real_model, odd):
    html = prompt_playground(*real_model, "{x} -> {y}", "$1, $2", odd)
    assert odd in unescape(html) and len(rows(html)) >= 4


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"query": " "}, "the query is empty"),
        ({"template": "{x} ->"}, "needs {x} once"),
        ({"template": ""}, "needs {x} once"),
        ({"examples": "hot"}, "line 1 is 'hot'"),
        ({"query": "word " * 700}, "600 is the most"),
        ({"labels": "good"}, "at least two different labels"),
        ({"labels": ", ".join("abcdefghi")}, "9 labels; 8 is the most"),
        ({"query": HALF}, "half of one"),
        ({"template": HALF + "{x}{y}"}, "half of one"),
    ],
)
def test_a_bad_prompt_becomes_a_message(real_model, changed, problem):
    values = {"template": "{x} -> {y}", "examples": OPPOSITES, "query": "happy", "labels": ""} | changed
    with pytest.raises((BadPrompt, BadData), match=re.escape(problem)):
        prompt_playground(*real_model, **values)
    html = render(lambda **typed: prompt_playground(*real_model, **typed), **values)
    assert html.startswith("<div role='alert'>") and "What to do" in html


# Lesson 3


@pytest.fixture(scope="module")
def elsewhere(real_model):
    text = "The river runs through the valley, and in the evening the boats come home with the tide."
    return text_rows(real_model[1], text, 16)


def test_an_adapter_is_trained_measured_and_taken_out(real_model, elsewhere):
    values = {"pairs": OPPOSITES, "query": "happy", "template": "The opposite of {x} is {y}", "steps": 8}
    html = lora_playground(*real_model, elsewhere, **values)
    answer, probability, right, perplexity = rows(html)
    assert "The opposite of happy is" in answer[0] and answer[1] != answer[2]
    assert float(probability[2]) > float(probability[1])
    assert right[1:] == ["0 of 4", "4 of 4"]
    assert float(perplexity[1]) != float(perplexity[2])
    [chart] = alts(html)
    losses = [float(y) for y in re.findall(r"([\d.]+) at \d", chart)]
    assert len(losses) == 8 and losses[-1] < losses[0] / 4
    assert lora.lora_layers(real_model[0]) == {} and "taken out again" in html
    assert lora_playground(*real_model, elsewhere, **values) == html, "the same text gives the same run"


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"pairs": ""}, "no pairs"),
        ({"pairs": "hot"}, "line 1 is 'hot'"),
        ({"pairs": "word " * 120 + ", y"}, "100 is the most"),
        ({"query": ""}, "the query is empty"),
        ({"query": "word " * 120}, "100 is the most"),
        ({"query": HALF}, "half of one"),
        ({"template": "{y} {x}"}, "needs {x} once"),
        ({"steps": 0}, "steps is 0"),
        ({"rank": 0}, "rank"),
        ({"lr": -1.0}, "lr is -1"),
        ({"lr": 1e38}, "lr is 1e+38"),
    ],
)
def test_bad_values_leave_the_model_without_an_adapter(real_model, elsewhere, changed, problem):
    values = {"pairs": "hot, cold", "query": "happy", "steps": 1} | changed
    with pytest.raises(CourseError, match=re.escape(problem)):
        lora_playground(*real_model, elsewhere, **values)
    assert lora.lora_layers(real_model[0]) == {}


def test_a_rate_that_ruins_the_model_is_told_and_leaves_nothing(real_model, elsewhere):
    values = {"pairs": "hot, cold", "query": "happy", "lr": 1.0, "steps": 4}
    html = render(lambda **typed: lora_playground(*real_model, elsewhere, **typed), **values)
    told = {name: after for name, _, after in rows(html)}
    assert "role='alert'" in html or float(told["perplexity elsewhere"]) > 1000
    assert lora.lora_layers(real_model[0]) == {}


def test_a_run_that_is_interrupted_leaves_nothing(real_model, elsewhere, monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(the_playground, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lora_playground(*real_model, elsewhere, "hot, cold", "happy")
    assert lora.lora_layers(real_model[0]) == {}


# Lesson 5

POINTS = "-2 -1.4, -1 -1.1, 0 0.1, 1 0.6\n-1 -1.7, -0.6 -1.3, -0.2 -0.4, 0.6 1.1"


def test_points_are_support_and_query_in_turn():
    family = landscape.own_lines(POINTS)
    assert family.batch.support_x[0].flatten().tolist() == [-2, 0]
    assert family.batch.query_y[1].flatten().tolist() == [-1.3, 1.1]
    exact = landscape.own_lines("0 1, 1 3, 2 5, 3 7")
    assert exact.truth[0].tolist() == pytest.approx([1, 2])


@pytest.mark.parametrize(("inner_lr", "steps", "start"), [(0.1, 2, "0 1"), (0.05, 1, "-0.5 2.5"), (0.3, 4, " 1  0 ")])
def test_the_tables_have_every_start_and_gradients_that_finite_differences_confirm(inner_lr, steps, start):
    html = landscape_figures.own_lines_view(POINTS, start, inner_lr, steps)
    family = landscape.own_lines(POINTS)
    own = torch.tensor([float(v) for v in start.split()], dtype=torch.float64)
    starts = {name: cells for name, *cells in rows(html)[:5]}
    for name in ("your start", *landscape.START_METHODS):
        theta = own if name == "your start" else landscape.resting_point(family, name, inner_lr, steps)
        losses = [landscape.loss_at(family, theta, inner_lr, n).item() for n in (0, steps)]
        assert starts[name] == [f"{v:.2f}" for v in [*theta.tolist(), *losses]]
    gradients = {name: cells for name, *cells in rows(html)[-4:]}
    true = maml.meta_gradient(family.module, {"theta": own}, family.batch, inner_lr=inner_lr, steps=steps)
    assert gradients["MAML"][:2] == [f"{v:.3f}" for v in true.params["theta"].tolist()]
    by_hand = [float(v) for v in gradients["MAML by finite differences"][:2]]
    assert by_hand == pytest.approx([float(v) for v in gradients["MAML"][:2]], abs=0.002)
    assert len(alts(html)) == 2 and "task 2" in alts(html)[0]


def test_points_on_one_line_have_nothing_left_to_learn():
    html = landscape_figures.own_lines_view("0 0, 1 1, 2 2, 3 3", "0 1", 0.1, 2)
    assert "one is zero" in html and "MAML 0.00" in alts(html)[1]


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"points": ""}, "0 tasks"),
        ({"points": "0 0, 1 1, 2 2, 3 3\n" * 9}, "9 tasks"),
        ({"points": "0 0, 1 1, 2 2"}, "task 1 has 3 points."),
        ({"points": POINTS + "\n0 0, 1 1, 2 2, 3 3, 4 4, 5 5"}, "task 3 has 6 points, task 1 has 4."),
        ({"points": "0 0, 1 $, 2 2, 3 3"}, "a point of task 1 is '1 $'"),
        ({"points": "0 0, 1 nan, 2 2, 3 3"}, "'1 nan'"),
        ({"points": "0 0, 1 1e3, 2 2, 3 3"}, "'1 1e3'"),
        ({"points": "0 0, 1 1, 0 2, 3 3"}, "at x = 0"),
        ({"start": "1"}, "your start is '1'"),
        ({"inner_lr": 0.0}, "inner_lr is 0.0"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_bad_points_become_messages(changed, problem):
    values = {"points": POINTS, "start": "0 1", "inner_lr": 0.1, "steps": 2} | changed
    with pytest.raises(CourseError, match=re.escape(problem)):
        landscape_figures.own_lines_view(**values)


# Lesson 8


@pytest.fixture
def adapter(real_model):
    lora.inject(real_model[0], lora.LoRAConfig(rank=4))
    yield trainable_state(real_model[0])
    lora.remove(real_model[0])


def test_tasks_are_read_with_a_template_of_their_own(real_model):
    text = f"# {{x}} in French is {{y}}\n{FRENCH}\n\n \n{OPPOSITES}\n\n"
    first, second = own_experiences(real_model[1], text)
    assert (first.name, len(first.train), len(second.train)) == ("task 1", 3, 4)
    assert real_model[1].decode(first.train[0].ids).strip() == "hot in French is chaud"
    assert real_model[1].decode(second.test[0].ids).strip() == "hot -> cold"


def test_nothing_is_trained_where_tasks_are_only_read(real_model, adapter):
    html = stream_playground(*real_model, adapter, f"{OPPOSITES}\n\n{FRENCH}")
    assert rows(html) == [["task 1", "4", "hot -> cold"], ["task 2", "3", "hot -> chaud"]]


@pytest.mark.parametrize("method", ["fine-tuning", "replay", "EWC", "adapter each"])
def test_each_method_fills_the_matrix_and_the_weights_are_put_back(real_model, adapter, method):
    model = real_model[0]
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("lora_B"):
                p.add_(0.001)  # what the lesson had trained before the cell was run
    kept, start = trainable_state(model), {name: value.clone() for name, value in adapter.items()}
    html = stream_playground(*real_model, start, "hot, cold\n\nhot, chaud", method, updates=4, kept=1)
    [chart] = alts(html)
    assert f"{method}: 4 updates a task" in chart and "after task 2: task 1" in chart
    assert "ACC " in html and "FWT " in html
    assert all(torch.equal(kept[name], value) for name, value in trainable_state(model).items())
    assert all(torch.equal(start[name], value) for name, value in adapter.items()), "the start itself was trained"
    if method == "replay":
        assert "1 examples" in html
    if method == "adapter each":
        assert "forgetting 0.00" in html


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"tasks": ""}, "0 tasks"),
        ({"tasks": OPPOSITES}, "1 tasks"),
        ({"tasks": "\n\n".join(["a, b"] * 5)}, "5 tasks"),
        ({"tasks": f"{OPPOSITES}\n\nhot"}, "task 2: line 1 is 'hot'"),
        ({"tasks": f"{OPPOSITES}\n\n# only {{x}}\nhot, chaud"}, "task 2: the template 'only {x}'"),
        ({"tasks": f"# {{x}} is {{y}}\n\n{OPPOSITES}"}, "task 1: there are no pairs"),
        ({"tasks": f"a{HALF}, b\n\n{OPPOSITES}"}, "half of one"),
        ({"method": "magic"}, "no method 'magic'"),
        ({"method": "replay", "kept": 0}, "size of the replay buffer is 0"),
        ({"method": "EWC", "strength": -1.0}, "strength is -1"),
        ({"method": "fine-tuning", "updates": 0}, "steps is 0"),
    ],
)
def test_bad_tasks_become_messages(real_model, adapter, changed, problem):
    values = {"tasks": f"{OPPOSITES}\n\n{FRENCH}"} | changed
    with pytest.raises(CourseError, match=re.escape(problem)):
        stream_playground(*real_model, adapter, **values)


# Lesson 10

ANIMALS, PLANTS = "cat dog horse mouse cow sheep".split(), "oak rose fern moss pine ivy".split()
LINES = "\n".join(["word,kind", *(f"{w},animal" for w in ANIMALS), *(f"{w},plant" for w in PLANTS)]) + "\n"


def test_lines_are_read_as_a_file_is(real_model):
    html = methods_playground(*real_model, None, LINES, "{x} is a kind of {y}")
    assert "The model reads &#x27;word&#x27; and answers &#x27;kind&#x27;" in html
    assert "a choice between &#x27;animal&#x27;, &#x27;plant&#x27;" in html
    assert "8 pairs to learn from, 4 held out: one query is 25%" in html and "is a kind of</pre>" in html


def test_prompts_are_tried_and_one_is_recommended(real_model):
    html = methods_playground(*real_model, None, LINES, "{x} is a kind of {y}", own_text.PROMPTS)
    [chart] = alts(html)
    assert "zero-shot: " in chart and "calibrated few-shot: " in chart and "LoRA" not in chart
    assert re.search(r"<b>\S.* answers \d+% of the queries", html)


def test_every_method_is_tried_and_no_adapter_stays(real_model):
    pairs = [*read_lines(OPPOSITES), ("open", "shut"), ("wet", "dry"), ("up", "down"), ("in", "out")]
    text = "\n".join(["word,opposite", *(f"{x},{y}" for x, y in pairs)])
    [chart] = alts(methods_playground(*real_model, None, text, "{x} is not {y}", own_text.EVERY))
    assert all(f"{method}: " in chart for method in (methods.ZERO, methods.FEW, methods.LORA, methods.CONTINUAL))
    assert lora.lora_layers(real_model[0]) == {}


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"text": ""}, "empty"),
        ({"text": "word,kind\ncat,animal"}, "1 different pairs"),
        ({"text": LINES + "cat,plant"}, "'cat' is 'animal' in line 2 and 'plant' in line 14"),
        ({"text": LINES + "frog"}, "line 14 has 1 cell"),
        ({"text": LINES + "word " * 250 + ",plant"}, "200 is the most"),
        ({"text": LINES + HALF}, "half of one"),
        ({"text": LINES + "".join(f"w{i},plant\n" for i in range(200))}, "212 pairs; 128 is the most"),
        ({"cue": "{x}"}, "needs {x} once"),
        ({"what": "guess"}, "no choice 'guess'"),
    ],
)
def test_bad_lines_become_messages(real_model, changed, problem):
    with pytest.raises(CourseError, match=re.escape(problem)):
        methods_playground(*real_model, None, **{"text": LINES} | changed)


def test_an_interval_holds_its_own_share():
    assert all(wilson(right, of)[0] <= right / of <= wilson(right, of)[1] for of in range(1, 60) for right in (0, of))


# Lesson 11

EACH = {cost_model.TRAIN_LORA: 14.0, cost_model.TRAIN_ALL: 19.0}
SIZES = {"layers": 32, "width": 4096, "rank": 8, "gigabits": 400.0}
STEP = {"text": "Where is my $5?", "rows": 8, "examples": 1000, "gpus": 4, "method": cost_model.TRAIN_ALL} | SIZES


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"gpus": 1},
        {"method": cost_model.TRAIN_LORA},
        {"gigabits": 10.0, "rows": 1},
        {"text": "日本語 " * 50},
        {"examples": 1},
    ],
)
def test_the_step_on_paper_is_the_cost_models(real_model, changed):
    values = STEP | changed
    html = figures.own_step_view(real_model[1], EACH, **values)
    found, row = dict(rows(html)), count_tokens(real_model[1], values["text"])
    gpus, method, tokens = values["gpus"], values["method"], values["rows"] * row
    shape = cost_model.Shape(32, 4096, 4096, 10923, 32000, tied=False)
    time = cost_model.step_time(shape, gpus * tokens, method, gpus, bandwidth=values["gigabits"] * 1e9 / 8)
    assert found["share of the time spent computing"] == f"{time.efficiency:.2f}"
    assert found["tokens in your row, and of each GPU in a step"] == f"{row:,}, {tokens:,}"
    sent = cost_model.ring_bytes(2 * shape.trained_weights(method), gpus) / 1e6
    assert found["each GPU sends in a step"] == f"{sent:,.1f} MB"
    steps = -(-values["examples"] // (values["rows"] * gpus))
    assert found[f"once through your {values['examples']:,} rows"].startswith(f"{steps:,} steps, ")
    memory = cost_model.step_memory(shape, tokens, tokens, method, bits=16, each=EACH[method])
    assert f"{memory.total / 1e9:.1f} in all" in alts(html)[0]


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"text": ""}, "has 0 tokens"),
        ({"text": "a"}, "has 1 tokens"),
        ({"text": "a" * 20_001}, "20,001 letters"),
        ({"text": HALF * 2}, "half of one"),
        ({"gpus": 0}, "gpus is 0"),
        ({"rows": -1}, "rows is -1"),
        ({"gigabits": 0.0}, "gigabits is 0"),
        ({"method": "magic"}, "no method 'magic'"),
    ],
)
def test_a_bad_step_becomes_a_message(real_model, changed, problem):
    with pytest.raises(CourseError, match=re.escape(problem)):
        figures.own_step_view(real_model[1], EACH, **STEP | changed)


# The widgets, and the lessons


def test_a_button_may_compute_once_before_it_is_pressed(monkeypatch):
    shown: list = []
    monkeypatch.setattr(IPython.display, "display", shown.append)
    on_demand(lambda text: f"<b>{text}</b>", at_once=True, text=text_box("a\nb", 3))
    chooser, button, result = shown[0].children
    [box] = [child for child in chooser.children if hasattr(child, "rows")]
    assert (result.value, box.rows, box.continuous_update) == ("<b>a\nb</b>", 3, False)
    box.value = "c"
    assert result.value == "<b>a\nb</b>"
    button.click()
    assert result.value == "<b>c</b>" and not button.disabled


FUNCTIONS = {
    "02_prompts_that_hold_up": "playground.prompt_playground",
    "05_maml_math": "views.own_lines_view",
    "08_continual_learning": "playground.stream_playground",
    "10_choose_your_adaptation": "playground.methods_playground",
    "11_scaling_out": "figures.own_step_view",
}


@pytest.mark.parametrize("lesson", FUNCTIONS)
def test_the_lesson_ends_in_its_playground_with_a_stored_result(lesson):
    notebook = nbformat.read(Path(__file__).resolve().parents[1] / "notebooks" / f"{lesson}.ipynb", 4)
    end = next(i for i, cell in enumerate(notebook.cells) if cell.source.startswith("## To remember"))
    last = [cell for cell in notebook.cells[:end] if cell.cell_type == "code"][-1]  # answers may follow it, folded
    assert FUNCTIONS[lesson] in last.source
    headings = [line for cell in notebook.cells[:end] for line in cell.source.split("\n") if line.startswith("## ")]
    assert headings[-1].endswith(("Playground", "Try it yourself"))
    view = "application/vnd.jupyter.widget-view+json"
    [name] = [output.data[view]["model_id"] for output in last.outputs if view in output.get("data", {})]
    state = next(iter(notebook.metadata.widgets.values())).state
    children = [state[child.removeprefix("IPY_MODEL_")] for child in state[name].state.children]
    assert len(children[-1].state.value) > 300, "the result is stored"
