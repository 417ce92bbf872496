"""Figures: what is drawn, what the alt text says, and that nothing is left behind."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from html.parser import HTMLParser

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import imread

from rapidadapt_lessons.errors import CourseError
from rapidadapt_lessons.show import looks, plots
from rapidadapt_lessons.show.intervals import Interval, interval
from rapidadapt_lessons.show.looks import COLOURS
from rapidadapt_lessons.show.picture import Picture

LINES = {"warm": {0: [0.25, 0.35], 4: [0.71, 0.81]}, "cold": {0: [0.05], 8: [0.93]}}
GROUPS = {"plurals": {"plain": 0.41, "chat": 0.62}, "capitals": {"plain": 0.13, "chat": 0.87}}
DOTS = {"before": {"yes": [0.11, 0.31], "no": [0.57]}, "after": {"yes": [0.83, 0.91], "no": [0.22]}}

# Each picture, the words at its two axes (None: the axis has names at its ticks instead), and numbers it must tell.
PICTURES = {
    "horizontal_bars": (
        lambda: plots.horizontal_bars({"a": 0.12, "b": 0.34}, title="T", xlabel="share"),
        ("share", None),
        ["a 0.12", "b 0.34"],
    ),
    "curves": (
        lambda: plots.curves(LINES, title="T", xlabel="shots", chance=0.5),
        ("shots", "accuracy (share of queries)"),
        ["warm: 0.30 at 0, 0.76 at 4", "cold: 0.05 at 0, 0.93 at 8"],
    ),
    "curves without limits": (
        lambda: plots.curves({"loss": {1: [12.5], 2: [3.25]}}, title="T", xlabel="step", ylabel="nats", limits=None),
        ("step", "nats"),
        ["12.50 at 1", "3.25 at 2"],
    ),
    "heat_map": (
        lambda: plots.heat_map([[0.12, 0.34], [0.56, 0.78]], ["a", "b"], ["c", "d e"], title="T"),
        (None, None),
        ["a: c 0.12, d e 0.34", "b: c 0.56, d e 0.78"],
    ),
    "strips": (
        lambda: plots.strips(DOTS, title="T", xlabel="P(yes)", line=0.5, line_label="decision"),
        ("P(yes)", None),
        ["before (yes): mean 0.21, from 0.11 to 0.31", "after (no): mean 0.22"],
    ),
    "strips of one kind": (
        lambda: plots.strips({"a": {"": [0.2, 0.4]}}, title="T", xlabel="x"),
        ("x", None),
        ["a: mean 0.30, from 0.20 to 0.40"],
    ),
    "grouped_bars": (
        lambda: plots.grouped_bars(GROUPS, title="T"),
        (None, "accuracy (share of queries)"),
        ["plurals: plain 0.41, chat 0.62", "capitals: plain 0.13, chat 0.87"],
    ),
}


@pytest.fixture(params=PICTURES)
def case(request):
    draw, labels, told = PICTURES[request.param]
    return draw(), labels, told


def pixels(png: bytes) -> np.ndarray:
    return imread(io.BytesIO(png))


def every_word(figure: Figure) -> str:
    """Return all text that a reader sees in a figure."""
    return "\n".join(text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_visible())


class Image(HTMLParser):
    """Read what a browser reads of one <img>."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.loose = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.loose += data


# Every picture


def test_every_public_function_that_draws_is_here():
    drawing = {
        name
        for name, function in vars(plots).items()
        if getattr(function, "__annotations__", {}).get("return") == "Picture" and function.__module__ == plots.__name__
    }
    ours = {"horizontal_bars", "curves", "heat_map", "strips", "grouped_bars"}
    assert ours <= drawing
    assert ours == {name.split()[0] for name in PICTURES}


def test_the_image_decodes_and_is_not_blank(case):
    picture, *_ = case
    image = pixels(picture.png())
    assert isinstance(picture, Picture) and image.shape[0] > 50 and image.shape[1] > 300
    colours = {to_hex(colour) for colour in np.unique(image.reshape(-1, image.shape[-1])[:, :3], axis=0)}
    assert "#ffffff" in colours and len(colours) > 20
    assert np.all(image[0, :, :3] == 1), "the background is white to the edge"


def test_axes_say_what_they_show(case):
    picture, (xlabel, ylabel), _ = case
    axes = picture.figure.axes[0]
    assert axes.get_title(loc="left") == "T"
    for wanted, axis in ((xlabel, axes.xaxis), (ylabel, axes.yaxis)):
        if wanted:
            assert axis.get_label_text() == wanted
        else:
            names = [label.get_text() for label in axis.get_ticklabels()]
            assert names and all(re.match("[a-z]", name) for name in names)


def test_the_alt_text_tells_the_numbers_the_title_and_the_axes(case):
    picture, labels, told = case
    for piece in [*told, "T", *filter(None, labels)]:
        assert piece in picture.alt
    assert re.match(r"(Bar chart|Line chart|Heat map|Dot plot)\. ", picture.alt) and picture.alt.endswith(".")


def test_a_notebook_gets_the_image_its_alt_text_and_the_same_as_plain_text(case):
    picture, *_ = case
    data, metadata = picture._repr_mimebundle_()
    assert set(data) == {"image/png", "text/plain"}
    assert data["text/plain"] == picture.alt
    assert metadata["image/png"]["alt"] == picture.alt
    assert pixels(base64.b64decode(data["image/png"])).shape[0] > 50


def test_ipython_uses_it(case):
    from IPython.core.formatters import DisplayFormatter

    picture, *_ = case
    data, metadata = DisplayFormatter().format(picture)
    assert data["text/plain"] == picture.alt and metadata["image/png"]["alt"] == picture.alt


def test_the_same_values_give_the_same_image():
    for draw, *_ in PICTURES.values():
        assert draw().png() == draw().png()


def test_no_figure_is_left_open_and_no_setting_changed():
    figures, settings = plt.get_fignums(), dict(matplotlib.rcParams)
    for draw, *_ in PICTURES.values():
        draw().png()
    assert plt.get_fignums() == figures == []
    assert dict(matplotlib.rcParams) == settings


def test_drawing_does_not_import_pyplot():
    code = (
        "import sys\nfrom rapidadapt_lessons.show import plots\n"
        "assert 'matplotlib' not in sys.modules\n"
        "plots.horizontal_bars({'a': 1.0}, title='t', xlabel='x').png()\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@given(st.text(st.characters(exclude_characters="\r\0", exclude_categories=["Cs"])))
def test_any_alt_text_survives_html(alt):
    picture = Picture(Figure(figsize=(1, 1)), alt)
    image = Image(picture.html())
    [(tag, attributes)] = image.tags
    assert (tag, attributes["alt"], image.loose) == ("img", alt, "")


def test_alt_text_cannot_become_markup():
    alt = """"><script>alert('x')</script> & "quotes" """
    picture = Picture(Figure(figsize=(1, 1)), alt)
    assert "<script" not in picture.html()
    kind, data = dict(Image(picture.html()).tags[0][1])["src"].split(",", 1)
    assert kind == "data:image/png;base64" and base64.b64decode(data) == picture.png()


# The interval


def test_an_interval_worked_by_hand():
    """Mean 0.65, standard deviation sqrt(0.05 / 3), t(3) = 3.182446, so half a width of 0.205426."""
    found = interval([0.5, 0.6, 0.7, 0.8])
    assert (found.mean, found.low, found.high) == pytest.approx((0.65, 0.444574, 0.855426), abs=1e-6)


def test_one_value_has_no_width_and_equal_values_have_none_either():
    assert interval([0.4]) == Interval(0.4, 0.4, 0.4)
    assert interval([0.5, 0.5, 0.5]) == Interval(0.5, 0.5, 0.5)


def test_an_interval_is_cut_at_its_bounds_and_only_there():
    assert interval([0.0, 1.0]) == Interval(0.5, 0.0, 1.0)
    wide = interval([0.0, 1.0], (float("-inf"), float("inf")))
    assert (wide.low, wide.high) == pytest.approx((0.5 - 6.3531, 0.5 + 6.3531), abs=1e-4)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_an_interval_holds_its_mean(values):
    found = interval(values)
    assert 0 <= found.low <= found.mean + 1e-12 and found.mean - 1e-12 <= found.high <= 1


def test_no_values_have_no_interval():
    with pytest.raises(CourseError, match="no values to average") as caught:
        interval([])
    assert "seed" in caught.value.remedy


# What is drawn


def test_bars_are_as_long_as_their_values_with_the_first_on_top():
    picture = plots.horizontal_bars({"a": 0.2, "b": 0.7, "c": 0.0}, title="T", xlabel="x", highlight=["b"], limit=1.0)
    axes = picture.figure.axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.2, 0.7, 0.0]
    assert [to_hex(bar.get_facecolor()).upper() for bar in axes.patches] == [COLOURS[0], COLOURS[1], COLOURS[0]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    assert axes.yaxis_inverted() and axes.get_xlim() == (0, 1.0)


@pytest.mark.parametrize("values", [[0.0, 0.0], [-3.0, -1.0], [-1.0, 2.0], [5.0, 40.0]])
def test_every_bar_is_inside_the_picture(values):
    picture = plots.horizontal_bars(dict(zip("ab", values)), title="T", xlabel="x")
    low, high = picture.figure.axes[0].get_xlim()
    assert low <= min(0, *values) and max(0, *values) <= high and low < high


@pytest.mark.parametrize("text", ["$$", "a $_$ b", "costs $5 and $6", r"\$x$", "$"])
def test_a_dollar_in_a_learners_text_is_a_dollar(text):
    picture = plots.horizontal_bars({text: 0.5}, title=text, xlabel="x")
    assert len(picture.png()) > 1000 and text in picture.alt
    axes = picture.figure.axes[0]
    shown = [axes.yaxis.get_ticklabels()[0], axes._left_title]
    for label in shown:
        plain, mathematics = label._preprocess_math(label.get_text())
        assert (plain, bool(mathematics)) == (text, False)


def test_curves_go_through_the_means_and_show_every_run():
    picture = plots.curves(LINES, title="T", xlabel="shots")
    axes = picture.figure.axes[0]
    for line, dots, name, xs in zip(axes.lines, [*axes.collections, None], LINES, ([0, 1], [0, 2])):
        assert list(line.get_ydata()) == pytest.approx([np.mean(values) for values in LINES[name].values()])
        assert list(line.get_xdata()) == pytest.approx(xs, abs=0.1)
        runs = [value for values in LINES[name].values() for value in values if len(values) > 1]
        if runs:  # a single run is the line's own mark
            assert list(dots.get_offsets()[:, 1]) == runs
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "4", "8"]
    assert len({(line.get_color(), line.get_marker()) for line in axes.lines}) == 2
    assert {"warm", "cold"} <= set(every_word(picture.figure).split("\n"))


def rings(picture: Picture) -> list[list[float]]:
    """Return where the hollow dots are."""
    hollow = [found for found in picture.figure.axes[0].collections if not len(found.get_facecolors())]
    return [found.get_offsets()[0].tolist() for found in hollow]


def test_a_live_run_gets_a_ring_in_its_methods_colour_and_its_words():
    results = {"LoRA": {1e-4: [0.6, 0.5], 1e-3: [0.2, 0.3]}, "full fine-tuning": {1e-5: [0.6], 1e-4: [0.3]}}
    drawn = {"title": "T", "xlabel": "lr", "ylabel": "loss", "limits": None}
    picture = plots.curves(results, live={"LoRA": (1e-3, 0.22)}, label_at="higher end", **drawn)
    [(x, y)] = rings(picture)
    assert (x, y) == (2, 0.22) and picture.alt.endswith("Your run: LoRA 0.22 at 0.001.")
    [ring] = [found for found in picture.figure.axes[0].collections if not len(found.get_facecolors())]
    assert to_hex(ring.get_edgecolor()).upper() == looks.look("LoRA").ink and "your run" in every_word(picture.figure)
    assert rings(plots.curves(results, **drawn)) == []


def test_a_live_run_between_the_recorded_settings_has_a_place_of_its_own():
    picture = plots.curves({"LoRA": {1: [0.2], 4: [0.4]}}, title="T", xlabel="x", live={"LoRA": (2, 0.3)})
    assert rings(picture) == [[1, 0.3]]
    assert [label.get_text() for label in picture.figure.axes[0].get_xticklabels()] == ["1", "2", "4"]


def test_a_live_run_among_strips_is_a_ring_in_its_row():
    picture = plots.strips(DOTS, title="T", xlabel="x", live={"after": {"no": 0.25}})
    [(x, y)] = rings(picture)
    assert x == 0.25 and 1 < y < 1.5
    assert "after (no): mean 0.22, from 0.22 to 0.22, your run 0.25" in picture.alt


def test_guessing_is_drawn_only_where_asked():
    assert "guessing" in every_word(plots.curves(LINES, title="T", xlabel="x", chance=0.25).figure)
    assert "guessing" not in every_word(plots.curves(LINES, title="T", xlabel="x").figure)


@pytest.mark.parametrize("limits", [(0, 30), (0, None), None])
def test_curves_of_other_things_than_shares_are_not_cut_at_1(limits):
    picture = plots.curves({"a": {1: [20.0, 22.0]}}, title="T", xlabel="x", ylabel="perplexity", limits=limits)
    axes = picture.figure.axes[0]
    assert axes.get_ylim()[1] > 21 and axes.collections[0].get_offsets()[:, 1].tolist() == [20, 22]
    assert "21.00 at 1" in picture.alt


def test_curves_stand_evenly_or_at_their_true_places():
    lines = {"a": {1: [0.1], 4: [0.4], 16: [0.9]}}
    for even, places in ((True, [0, 1, 2]), (False, [0, 0.4, 2])):
        ticks = plots.curves(lines, title="T", xlabel="x", even=even).figure.axes[0].get_xticks()
        assert ticks == pytest.approx(places)
    drawn = plots.curves(lines, title="T", xlabel="x", even=False).figure.axes[0].lines[0].get_xdata()
    assert np.diff(drawn) == pytest.approx([0.4, 1.6])
    assert "0.50 at 3" in plots.curves({"a": {3: [0.5]}}, title="T", xlabel="x", even=False).alt


def test_names_at_the_ends_of_lines_stay_beside_the_axes():
    lines = {f"line {i}": {1: [0.5], 2: [1.0]} for i in range(4)} | {"low": {1: [0.1], 2: [0.1]}}
    axes = plots.curves(lines, title="T", xlabel="x").figure.axes[0]
    heights = sorted(text.get_position()[1] for text in axes.texts)
    assert heights[0] == 0.1 and heights[-1] <= axes.get_ylim()[1]
    assert np.diff(heights).min() > 0.05


def test_names_at_the_ends_of_close_lines_do_not_overlap():
    lines = {f"line {i}": {1: [0.5], 2: [0.5 + i / 1000]} for i in range(5)}
    picture = plots.curves(lines, title="T", xlabel="x")
    picture.png()
    boxes = [text.get_window_extent() for text in picture.figure.axes[0].texts if text.get_text().startswith("line")]
    assert len(boxes) == 5
    boxes.sort(key=lambda box: box.y0)
    assert all(below.y1 <= above.y0 + 1 for below, above in zip(boxes, boxes[1:]))


def test_a_heat_map_holds_its_values_and_writes_them_readably():
    values = [[0.05, 0.95], [0.5, 0.2]]
    picture = plots.heat_map(values, ["r1", "r2"], ["c1", "c2"], title="T", label="share")
    axes, bar = picture.figure.axes
    assert axes.images[0].get_array().tolist() == values
    assert axes.images[0].get_clim() == (0, 1) and bar.get_ylabel() == "share"
    written = {text.get_position(): (text.get_text(), text.get_color()) for text in axes.texts}
    assert written == {
        (0, 0): ("0.05", "white"),
        (1, 0): ("0.95", "black"),
        (0, 1): ("0.50", "black"),
        (1, 1): ("0.20", "white"),
    }


def test_a_heat_map_frames_the_cells_that_are_named():
    picture = plots.heat_map([[0.1, 0.2], [0.3, 0.4]], ["a", "b"], ["c", "d"], title="T", framed=[(1, 0)])
    [frame] = picture.figure.axes[0].patches
    box = frame.get_bbox()
    assert box.intervalx.round().tolist() == [0, 0] and box.intervaly.round().tolist() == [1, 1]
    assert not frame.get_fill()


def test_counts_are_written_without_decimals():
    picture = plots.horizontal_bars({"a": 63, "b": 6.5, "c": 1.0}, title="T", xlabel="x")
    assert [text.get_text().strip() for text in picture.figure.axes[0].texts] == ["63", "6.50", "1.00"]
    assert "a 63, b 6.50, c 1.00" in picture.alt


def test_strips_draw_every_value_and_each_mean():
    picture = plots.strips(DOTS, title="T", xlabel="x", line=0.5, line_label="decision")
    axes = picture.figure.axes[0]
    drawn = [sorted(dots.get_offsets()[:, 0].tolist()) for dots in axes.collections if len(dots.get_offsets())]
    assert drawn == [[0.11, 0.31], [0.57], [0.83, 0.91], [0.22]]
    means = [line.get_xdata()[0] for line in axes.lines][:4]
    assert means == pytest.approx([0.21, 0.57, 0.87, 0.22])
    assert "decision" in every_word(picture.figure)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["yes", "no"]


def test_equal_dots_are_stacked_and_can_be_counted():
    values = [0.5] * 9 + [0.505, 0.9]
    picture = plots.strips({"a": {"": values}, "b": {"": [0.1]}}, title="T", xlabel="x", means=False)
    dots, alone = (found.get_offsets() for found in picture.figure.axes[0].collections)
    size = picture.figure.axes[0].collections[0].get_sizes()[0]  # of a dot, in square points
    assert sorted(dots[:, 0]) == values and len({tuple(place) for place in dots.tolist()}) == 11
    heights = sorted(dots[:10, 1])
    picture.png()
    places = picture.figure.axes[0].transData.transform(dots[:10])[:, 1]
    dot = size**0.5 / 72 * picture.figure.dpi  # its width, in the picture's own pixels
    assert np.diff(sorted(places)).min() > 0.9 * dot
    assert -0.5 < heights[0] and heights[-1] < 0.5 and alone[0, 1] == 1
    assert picture.alt.endswith("a: 0.50 (9 times), 0.51, 0.90; b: 0.10.") and not picture.figure.axes[0].lines


def test_grouped_bars_stand_side_by_side():
    axes = plots.grouped_bars(GROUPS, title="T").figure.axes[0]
    assert [[bar.get_height() for bar in kind] for kind in axes.containers] == [[0.41, 0.13], [0.62, 0.87]]
    left, right = axes.containers
    assert all(a.get_x() + a.get_width() <= b.get_x() for a, b in zip(left, right))
    assert left[0].get_hatch() != right[0].get_hatch()


def test_a_small_bar_is_not_told_as_zero():
    cluster = {"p": 1e-5, "q": 0.0, "r": 0.005001}
    assert "a: p <0.005, q 0.00, r 0.01" in plots.grouped_bars({"a": cluster}, title="T").alt
    picture = plots.horizontal_bars({"a": 1e-5, "b": 0.0}, title="T", xlabel="x")
    assert "a <0.005, b 0.00" in picture.alt and "<0.005" in every_word(picture.figure)


def test_long_names_of_neighbouring_clusters_do_not_overlap():
    names = ["Capital of a country", "French name of a country"]
    picture = plots.grouped_bars({name: {"p": 0.5, "q": 0.6} for name in names}, title="T")
    picture.png()
    left, right = (label.get_window_extent() for label in picture.figure.axes[0].get_xticklabels())
    assert left.x1 < right.x0 and all(name in picture.alt for name in names)


def test_a_cluster_may_lack_a_kind():
    picture = plots.grouped_bars({"a": {"p": 0.1}, "b": {"p": 0.2, "q": 0.3}}, title="T")
    assert "nan" not in every_word(picture.figure) and "nan" not in picture.alt
    assert pixels(picture.png()).size


def test_more_kinds_than_colours_can_be_drawn():
    many = {str(i): 0.1 * i for i in range(len(COLOURS) + 2)}
    assert plots.grouped_bars({"a": many}, title="T").png()
    assert plots.strips({"a": {kind: [value] for kind, value in many.items()}}, title="T", xlabel="x").png()
    assert plots.curves({kind: {1: [value]} for kind, value in many.items()}, title="T", xlabel="x").png()


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.horizontal_bars({}, title="T", xlabel="x"),
        lambda: plots.curves({}, title="T", xlabel="x"),
        lambda: plots.heat_map([], [], [], title="T"),
        lambda: plots.strips({}, title="T", xlabel="x"),
        lambda: plots.grouped_bars({}, title="T"),
    ],
)
def test_nothing_to_draw_is_told(draw):
    with pytest.raises(CourseError, match="no values to draw") as caught:
        draw()
    assert "at least one" in caught.value.remedy
