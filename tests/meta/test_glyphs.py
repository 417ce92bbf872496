"""Letters as pictures: whole scripts held out, no twin across the split, different pictures in support and query."""

from __future__ import annotations

import pytest
import torch

from rapidadapt_lessons.errors import BadData, CourseError, MissingPackage, NotEnoughExamples
from rapidadapt_lessons.meta import glyphs
from rapidadapt_lessons.meta.glyphs import FACES, SIZE, augment, episodes, load_glyphs, load_split

SMALL = ("GREEK", "HEBREW")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_scripts_are_split_once():
    sets = [set(part) for part in (glyphs.TRAIN_SCRIPTS, glyphs.VALIDATION_SCRIPTS, glyphs.TEST_SCRIPTS)]
    assert len(glyphs.SCRIPTS) == len(set.union(*sets)) == sum(map(len, sets))


def test_every_letter_is_drawn_by_its_faces_alone():
    found = load_glyphs(SMALL)
    ink = found.images.flatten(2).any(-1)
    assert found.images.shape == (len(found), len(FACES), SIZE, SIZE) and found.images.dtype == torch.uint8
    assert torch.equal(ink, found.drawn)
    assert found.drawn[:, 0].all()
    assert set(found.scripts) == set(SMALL) and "α" in found.letters and "א" in found.letters
    assert "Α" not in found.letters and "ά" not in found.letters  # a capital, and a letter with an accent


def test_no_held_out_letter_has_a_twin_in_training():
    train, validation, test = load_split()
    assert len(test) > 120 and len(validation) > 50 and len(train) > 800
    assert set(test.scripts) == set(glyphs.TEST_SCRIPTS) and set(validation.scripts) == set(glyphs.VALIDATION_SCRIPTS)
    assert "ո" in load_glyphs(["ARMENIAN"]).letters and "ո" not in test.letters  # it looks like an n
    assert "ש" in test.letters and len(test.letters) == len(test.images) == len(test.drawn)
    for part in (validation, test):
        gap = torch.cdist(part.images[:, 0].flatten(1).float(), train.images[:, 0].flatten(1).float()) / 255
        assert gap.min() > 2  # at least the ink of four pixels, put elsewhere


def test_letters_fill_the_picture_and_keep_off_its_edge():
    found = load_glyphs(SMALL)
    inked = found.images[found.drawn] > 0
    longer = torch.maximum(inked.any(2).sum(1), inked.any(1).sum(1))
    assert longer.float().mean() > 18
    assert longer.max() <= SIZE - 4


def test_an_episode_has_the_promised_shapes_and_classes():
    batch = episodes(load_glyphs(SMALL), 5, 2, tasks=3, generator=generator(), n_query=4)
    assert batch.support_x.shape == (3, 10, 1, SIZE, SIZE) and batch.query_x.shape == (3, 20, 1, SIZE, SIZE)
    assert batch.support_y.tolist() == [[0, 0, 1, 1, 2, 2, 3, 3, 4, 4]] * 3
    assert batch.query_y.tolist() == [[way for way in range(5) for _ in range(4)]] * 3
    assert batch.support_x.min() >= 0 and batch.support_x.max() <= 1


def test_one_task_stays_within_one_script(monkeypatch):
    monkeypatch.setattr(glyphs, "augment", lambda images, generator: images)
    found = load_glyphs(SMALL)
    script_of = [script for script in found.scripts for _ in FACES]
    rows = {row.numpy().tobytes(): script for row, script in zip(found.images.flatten(0, 1), script_of)}
    batch = episodes(found, 5, 1, tasks=20, generator=generator(), n_query=1)
    drawn = [{rows[(x * 255).round().byte().numpy().tobytes()] for x in task} for task in batch.support_x]
    assert all(len(scripts) == 1 for scripts in drawn)
    assert len(set.union(*drawn)) == 2


def test_support_and_query_never_share_a_picture(monkeypatch):
    """Greek has twelve faces: up to twelve pictures of a letter differ even before they are warped."""
    greek = load_glyphs(["GREEK"])
    all_faces = [i for i, drawn in enumerate(greek.drawn) if drawn.all()]
    some = greek.pick(all_faces)
    for warp, n_query in ((augment, 20), (lambda images, generator: images, 6)):
        monkeypatch.setattr(glyphs, "augment", warp)
        batch = episodes(some, 5, 5, tasks=2, generator=generator(), n_query=n_query)
        assert (torch.cdist(batch.query_x.flatten(2), batch.support_x.flatten(2)) > 0.1).all()


def test_equal_seeds_give_equal_tasks_and_others_do_not():
    hebrew = load_glyphs(["HEBREW"])
    a, b, c = (episodes(hebrew, 3, 1, tasks=1, generator=generator(seed), n_query=2) for seed in (0, 0, 1))
    assert torch.equal(a.support_x, b.support_x) and torch.equal(a.query_x, b.query_x)
    assert not torch.equal(a.support_x, c.support_x)


@pytest.mark.parametrize("side, zoom, top, left", [(28, 1, 0, 0), (112, 4, 0, 0), (140, 4, 25, 3)])
def test_a_drawing_of_any_size_and_place_becomes_the_fonts_letter(side, zoom, top, left):
    """A letter of the font, drawn larger or in a corner, comes back as the font has it: size, middle and strokes."""
    letter = load_glyphs(["HEBREW"]).images[0, 0].float() / 255
    drawing = torch.zeros(side, side)
    drawing[top : top + zoom * SIZE, left : left + zoom * SIZE] = torch.kron(letter, torch.ones(zoom, zoom))
    found = glyphs.centred(drawing)
    assert found.shape == (SIZE, SIZE) and 0 <= found.min() and found.max() <= 1
    assert (found - letter).abs().mean() < 0.2 * letter.mean()


def test_a_small_drawing_grows_and_keeps_its_shape():
    drawing = torch.zeros(SIZE, SIZE)
    drawing[1:3, 1:11] = 1  # a bar, five times as wide as high
    rows, columns = ((glyphs.centred(drawing) > 0.5).any(side).nonzero()[:, 0].tolist() for side in (1, 0))
    assert (rows, columns) == ([12, 13, 14, 15], list(range(4, 24)))


def test_an_empty_drawing():
    with pytest.raises(BadData, match="no drawing"):
        glyphs.centred(torch.zeros(SIZE, SIZE))


@pytest.fixture
def only_shifts(monkeypatch):
    for name in ("_ROTATION", "_SCALE", "_SHEAR"):
        monkeypatch.setattr(glyphs, name, 0)


def test_augment_with_nothing_to_do_changes_nothing(only_shifts, monkeypatch):
    images = load_glyphs(["HEBREW"]).images[:4, :1].float() / 255
    assert not torch.allclose(augment(images, generator()), images, atol=0.1)
    monkeypatch.setattr(glyphs, "_SHIFT", 0)
    assert torch.allclose(augment(images, generator()), images, atol=1e-5)


@pytest.mark.parametrize("name", ["_ROTATION", "_SCALE", "_SHEAR"])
def test_each_warp_changes_the_picture(only_shifts, monkeypatch, name):
    images = load_glyphs(["HEBREW"]).images[:4, :1].float() / 255
    monkeypatch.setattr(glyphs, "_SHIFT", 0)
    monkeypatch.setattr(glyphs, name, 0.5)
    assert not torch.allclose(augment(images, generator()), images, atol=1e-2)


def test_augment_shifts_by_the_share_it_says(only_shifts):
    dot = torch.zeros(400, 1, SIZE, SIZE)
    dot[:, :, 13:15, 13:15] = 1
    moved = augment(dot, generator())
    column = (moved.sum(2)[:, 0] * torch.arange(SIZE)).sum(1) / moved.sum((1, 2, 3)) - 13.5
    assert 0.08 * SIZE < column.abs().max() <= 0.1 * SIZE + 0.01


@pytest.mark.parametrize("name, value", [("ways", 1), ("shots", 0), ("n_query", 0), ("tasks", 0)])
def test_numbers_that_make_no_sense(name, value):
    numbers = {"ways": 5, "shots": 1, "n_query": 1, "tasks": 1} | {name: value}
    with pytest.raises(CourseError, match=f"{name} is {value}"):
        episodes(load_glyphs(SMALL), generator=generator(), **numbers)


def test_more_ways_than_letters():
    hebrew = load_glyphs(["HEBREW"])
    letters = len(hebrew)
    with pytest.raises(NotEnoughExamples, match=f"{letters + 1}-way.*HEBREW.* has {letters} letters"):
        episodes(hebrew, letters + 1, 1, tasks=1, generator=generator(), n_query=1)
    batch = episodes(hebrew, letters, 1, tasks=1, generator=generator(), n_query=1)
    assert batch.support_y.shape == (1, letters)


def test_an_unknown_script_and_none():
    with pytest.raises(CourseError, match="no script 'KLINGON'"):
        load_glyphs(("GREEK", "KLINGON"))
    with pytest.raises(CourseError, match="there are no scripts"):
        load_glyphs(())


def test_a_missing_font(monkeypatch, tmp_path):
    monkeypatch.setattr("matplotlib.get_data_path", lambda: str(tmp_path))
    glyphs._draw_script.cache_clear()
    with pytest.raises(MissingPackage, match="DejaVuSans.ttf"):
        load_glyphs(["HEBREW"])
