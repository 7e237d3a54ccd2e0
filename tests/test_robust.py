"""Robust training: movements inside their ball, up the loss or at random, and rows with synonyms."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from xadapt.data import Rows
from xadapt.data.sources import EmbeddedSource
from xadapt.data.synonyms import Neighbours, read_neighbours, synonym_copies
from xadapt.errors import UserError
from xadapt.formats import FORMATS, Features
from xadapt.formats.features import collate
from xadapt.models.backbone import Backbone
from xadapt.models.task_model import MultiTaskModel, TaskModel, last_layer_of_first_token
from xadapt.models.trimming import trim_vocabulary
from xadapt.regimes.protocol import open_regime
from xadapt.regimes.specs import AdapterSpec, FullSpec, RegimeSpec
from xadapt.tasks import TASKS, get_task
from xadapt.training.device import make_accelerator
from xadapt.training.dropout import CpuDropout
from xadapt.training.robust import Perturbation, embedding_scale, uniform_in_ball
from xadapt.training.settings import RobustSettings, check_robust

SPECS: dict[str, RegimeSpec] = {"full": FullSpec(), "adapter": AdapterSpec()}
SPECIAL, PAD = (0, 2), 1
FORMAT = FORMATS["classification"]
DEMO = Path(__file__).parents[1] / "configs" / "synonyms-demo.txt"


@dataclass(frozen=True)
class Job:
    """A model, features, and what moves its words."""

    model: TaskModel
    features: Features
    scale: float

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        return collate(self.features, indices, PAD)

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        with CpuDropout():
            return FORMAT.loss(self.model(**batch), batch["labels"]) / 7

    def perturbation(self, method: str, **numbers: Any) -> Perturbation:
        settings = RobustSettings.model_validate({"method": method, **numbers})
        return Perturbation(settings, scale=self.scale, special_ids=SPECIAL)

    def delta(self, moving: Perturbation, indices: Sequence[int], draw: tuple[int, ...] = (3, 1)) -> Tensor:
        batch = self.batch(indices)
        with moving.perturbed(self.model, batch, lambda: self.loss(batch), indices=indices, draw=draw) as delta:
            return delta

    def gradients(self, moving: Perturbation | None, indices: Sequence[int]) -> dict[str, Tensor]:
        """The gradients of a robust step, or of a plain one, under the same dropout."""
        batch = self.batch(indices)
        self.model.train()
        self.model.zero_grad()
        torch.manual_seed(5)
        if moving is None:
            self.loss(batch).backward()
        else:
            with moving.perturbed(self.model, batch, lambda: self.loss(batch), indices=indices, draw=(3, 1)):
                loss = self.loss(batch)
            loss.backward()
        return found_gradients(self.model)


def found_gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def job(backbone: Backbone, regime: str = "full") -> Job:
    """A model that words matter to: its layers are not as faint as fresh ones, and it has learnt a little of 64 pairs."""
    task = get_task("mnli")
    features = FORMAT.encode(EmbeddedSource().load(task, "en", "train", limit=64), task, backbone.tokenizer, 48)
    torch.manual_seed(0)
    encoder = open_regime(SPECS[regime]).attach(backbone, name="mnli")
    for name, parameter in encoder.named_parameters():
        if parameter.dim() == 2 and "encoder.layer" in name and "adapters" not in name:
            parameter.data *= 5
    head = FORMAT.head(encoder.config.hidden_size, task, 0.1)
    assert head is not None
    made = Job(TaskModel(encoder, head), features, embedding_scale(encoder))
    optimizer = torch.optim.Adam([p for p in made.model.parameters() if p.requires_grad], lr=5e-3)
    for step in range(25):
        optimizer.zero_grad()
        made.loss(made.batch(range(step % 4 * 16, step % 4 * 16 + 16))).backward()
        optimizer.step()
    return made


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return Backbone(str(tiny_backbone))


@pytest.fixture(scope="module", params=["full", "adapter"])
def trained(request: pytest.FixtureRequest, backbone: Backbone) -> Job:
    return job(backbone, request.param)


@pytest.fixture(scope="module")
def full(backbone: Backbone) -> Job:
    return job(backbone)


ROWS = [5, 2, 40, 17, 33, 8]


def hidden_at(model: TaskModel, batch: dict[str, Tensor], delta: Tensor) -> Tensor:
    """Logits with words moved by delta, fed past the word embedding instead of through it."""
    words = model.encoder.get_input_embeddings()(batch["input_ids"]) + delta
    with CpuDropout(), last_layer_of_first_token(model.encoder):
        hidden = model.encoder(inputs_embeds=words, attention_mask=batch["attention_mask"]).last_hidden_state
        logits: Tensor = model.head(hidden)
    return logits


# what is moved, and how far


@pytest.mark.parametrize("method", ["adversarial", "random"])
def test_words_stay_in_the_ball_and_nothing_else_moves(trained: Job, method: str) -> None:
    moving = trained.perturbation(method, epsilon=0.3)
    assert moving.radius == pytest.approx(0.3 * trained.scale)
    batch, norms = trained.batch(ROWS), trained.delta(moving, ROWS).norm(dim=-1)
    ordinary = (batch["input_ids"] > 2) & batch["attention_mask"].bool()
    assert not batch["attention_mask"].all()
    assert norms[~ordinary].eq(0).all()
    assert norms[ordinary].gt(0).all()
    assert norms.max() <= moving.radius * (1 + 1e-6)


def test_the_ascent_reaches_the_border_where_it_pushes(full: Job) -> None:
    border = full.perturbation("adversarial", epsilon=0.3, steps=1, step_size=1.0)
    inside = full.perturbation("adversarial", epsilon=0.3, steps=3, step_size=0.25)
    ordinary = full.batch(ROWS)["input_ids"] > 2
    norms = full.delta(border, ROWS).norm(dim=-1)[ordinary]
    torch.testing.assert_close(norms, torch.full_like(norms, border.radius))
    assert full.delta(inside, ROWS).norm(dim=-1).max() <= 0.75 * inside.radius * (1 + 1e-6)


def test_radius_follows_the_backbones_scale(backbone: Backbone) -> None:
    encoder = backbone.encoder()
    rows = encoder.get_input_embeddings().weight.detach().double()
    assert embedding_scale(encoder) == pytest.approx(float(rows.pow(2).sum(1).sqrt().mean()), rel=1e-5)
    encoder.get_input_embeddings().weight.data *= 3
    settings = RobustSettings(method="random", epsilon=0.2)
    moving = Perturbation(settings, scale=embedding_scale(encoder), special_ids=SPECIAL)
    assert moving.radius == pytest.approx(0.6 * float(rows.norm(dim=1).mean()), rel=1e-5)


# the worst case


def test_adversarial_raises_the_loss_over_the_clean_and_the_random_one(trained: Job) -> None:
    batch = trained.batch(ROWS)
    trained.model.eval()

    def loss_under(moving: Perturbation) -> float:
        with moving.perturbed(trained.model, batch, lambda: trained.loss(batch), indices=ROWS, draw=(0, 1)):
            return trained.loss(batch).item()

    clean = trained.loss(batch).item()
    losses = [loss_under(trained.perturbation("adversarial", epsilon=e)) for e in (0.05, 0.2, 0.8)]
    assert [clean, *losses] == sorted([clean, *losses])
    assert losses[1] > 1.01 * clean
    random = loss_under(trained.perturbation("random", epsilon=0.2))
    assert losses[1] - clean > 3 * abs(random - clean)


def reference_ascent(model: TaskModel, batch: dict[str, Tensor], *, radius: float, steps: int, step: float) -> Tensor:
    """Projected gradient ascent, token by token."""
    rows, tokens = batch["input_ids"].shape
    delta = torch.zeros(rows, tokens, model.encoder.config.hidden_size)
    for _ in range(steps):
        delta.requires_grad_(True)
        logits = hidden_at(model, batch, delta)
        total = sum(-logits[row].log_softmax(0)[batch["labels"][row]] for row in range(rows))
        (gradient,) = torch.autograd.grad(total, delta)
        delta = delta.detach().clone()
        for row in range(rows):
            for token in range(tokens):
                if int(batch["input_ids"][row, token]) in (*SPECIAL, PAD):
                    continue
                direction = gradient[row, token] / gradient[row, token].norm()
                point = delta[row, token] + step * direction
                delta[row, token] = point * min(1.0, radius / float(point.norm()))
    return delta


@pytest.mark.parametrize(("steps", "step_size"), [(1, 0.5), (3, 0.5), (4, 1.5)])
def test_ascent_is_the_references(trained: Job, steps: int, step_size: float) -> None:
    moving = trained.perturbation("adversarial", epsilon=0.2, steps=steps, step_size=step_size)
    trained.model.train()
    found = trained.delta(moving, ROWS)
    trained.model.eval()
    step = step_size * moving.radius
    expected = reference_ascent(trained.model, trained.batch(ROWS), radius=moving.radius, steps=steps, step=step)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3 * moving.radius)


@pytest.mark.parametrize("method", ["adversarial", "random"])
def test_a_robust_step_has_the_gradients_at_the_fixed_movement(trained: Job, method: str) -> None:
    moving = trained.perturbation(method, epsilon=0.3)
    found = trained.gradients(moving, ROWS)
    delta, batch = trained.delta(moving, ROWS), trained.batch(ROWS)
    trained.model.zero_grad()
    torch.manual_seed(5)  # the search has drawn nothing: dropout is the same without it
    (FORMAT.loss(hidden_at(trained.model, batch, delta), batch["labels"]) / 7).backward()
    expected = found_gradients(trained.model)
    assert found.keys() == expected.keys()
    assert found.keys() == {name for name, p in trained.model.named_parameters() if p.requires_grad}
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5, msg=name)
    plain = trained.gradients(None, ROWS)
    assert any(not torch.allclose(found[name], plain[name], rtol=1e-2, atol=1e-5) for name in plain)


@pytest.mark.parametrize("method", ["adversarial", "random"])
def test_without_a_radius_the_step_is_the_plain_one(trained: Job, method: str) -> None:
    found, plain = trained.gradients(trained.perturbation(method, epsilon=0), ROWS), trained.gradients(None, ROWS)
    assert all(torch.equal(found[name], plain[name]) for name in plain)
    assert found.keys() == plain.keys()


def test_the_search_leaves_gradients_modes_and_generator(trained: Job) -> None:
    trained.gradients(None, ROWS)
    before, state = found_gradients(trained.model), torch.get_rng_state()
    frozen = trained.model.head.eval()  # one part that is not in the others' mode
    modes = {name: module.training for name, module in trained.model.named_modules()}
    trained.delta(trained.perturbation("adversarial", epsilon=0.3), ROWS)
    after = found_gradients(trained.model)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert {name: module.training for name, module in trained.model.named_modules()} == modes
    assert torch.equal(torch.get_rng_state(), state)
    frozen.train()


@pytest.mark.parametrize("fails", [False, True])
def test_afterwards_the_model_is_as_before(full: Job, fails: bool) -> None:
    batch = full.batch(ROWS)
    full.model.eval()
    before = full.model(**batch)
    full.model.train()

    def loss() -> Tensor:
        if fails:
            raise MemoryError
        return full.loss(batch)

    moving = full.perturbation("adversarial", epsilon=0.3)
    try:
        with moving.perturbed(full.model, batch, loss, indices=ROWS, draw=(0, 1)):
            assert not torch.equal(full.model.eval()(**batch), before)
    except MemoryError:
        assert fails
        assert all(module.training for module in full.model.modules())
    assert torch.equal(full.model.eval()(**batch), before)


def test_bfloat16_runs(backbone: Backbone) -> None:
    made = job(backbone, "adapter")
    made = replace(made, model=make_accelerator("bfloat16").prepare(made.model))
    moving, batch = made.perturbation("adversarial", epsilon=0.2), made.batch(ROWS)
    made.model.train()
    with moving.perturbed(made.model, batch, lambda: made.loss(batch), indices=ROWS, draw=(0, 1)) as delta:
        made.loss(batch).backward()
    assert delta.dtype == torch.float32
    assert delta.norm(dim=-1).max() <= moving.radius * (1 + 1e-6)
    made.model.eval()
    clean = made.loss(batch).item()
    with moving.perturbed(made.model, batch, lambda: made.loss(batch), indices=ROWS, draw=(0, 1)):
        assert made.loss(batch).item() > clean
    assert all(gradient.isfinite().all() for gradient in found_gradients(made.model).values())


def test_a_head_of_several_is_moved_against(full: Job) -> None:
    several = MultiTaskModel(full.model.encoder, {"other": FORMAT.head(32, get_task("qqp"), 0.1), "mnli": full.model.head})  # type: ignore[dict-item]  # fmt: skip
    moving, batch = full.perturbation("adversarial", epsilon=0.2), full.batch(ROWS)

    def loss() -> Tensor:
        return FORMAT.loss(several(**batch, task="mnli"), batch["labels"])

    with moving.perturbed(several, batch, loss, indices=ROWS, draw=(0, 1)) as delta:
        pass
    torch.testing.assert_close(delta, full.delta(moving, ROWS), rtol=0, atol=1e-3 * moving.radius)


@pytest.mark.parametrize("method", ["adversarial", "random"])
def test_a_trimmed_vocabulary_changes_nothing(backbone: Backbone, method: str) -> None:
    made = job(backbone)
    whole = made.delta(made.perturbation(method, epsilon=0.2), ROWS)
    trimmed = trim_vocabulary(made.model.encoder, made.features.input_ids)
    assert len(trimmed.ids) < len(trimmed.full)
    cut = replace(made, features=replace(made.features, input_ids=trimmed.map(made.features.input_ids)))
    torch.testing.assert_close(cut.delta(cut.perturbation(method, epsilon=0.2), ROWS), whole)


# the random movement


@pytest.mark.parametrize("method", ["adversarial", "random"])
def test_the_cut_into_micro_batches_changes_nothing(full: Job, method: str) -> None:
    moving = full.perturbation(method, epsilon=0.3)
    whole = full.delta(moving, ROWS)
    for cut in (ROWS[:1], ROWS[1:4], ROWS[4:]):
        part = full.delta(moving, cut)
        same = whole[ROWS.index(cut[0]) :][: len(cut), : part.shape[1]]
        torch.testing.assert_close(part, same, rtol=0, atol=1e-3 * moving.radius if method == "adversarial" else 0)


def test_draws_come_from_seed_step_and_feature_alone(full: Job) -> None:
    moving = full.perturbation("random", epsilon=0.3)
    torch.manual_seed(1)
    found = full.delta(moving, ROWS, (7, 2))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(full.delta(full.perturbation("random", epsilon=0.3), ROWS, (7, 2)), found)
    assert torch.equal(torch.get_rng_state(), state)
    moved = found.norm(dim=-1) > 0
    for draw in ((8, 2), (7, 3), (2, 7)):
        assert (full.delta(moving, ROWS, draw)[moved] != found[moved]).any(dim=-1).all()
    tokens = found[moved]
    assert len(torch.unique(tokens, dim=0)) == len(tokens)


@pytest.mark.parametrize("dimensions", [1, 3, 32])
def test_points_fill_the_ball_evenly(dimensions: int) -> None:
    n = 40_000
    points = uniform_in_ball(np.random.default_rng(0), n, dimensions).astype(np.float64)
    radii = np.linalg.norm(points, axis=1)
    assert radii.max() <= 1 + 1e-6
    # the share of points within r is r ** d: Kolmogorov and Smirnov's distance, critical value for p = 1e-4
    expected = np.sort(radii) ** dimensions
    assert np.abs(expected - (np.arange(n) + 0.5) / n).max() < 2.23 / np.sqrt(n)
    assert (radii**2).mean() == pytest.approx(dimensions / (dimensions + 2), abs=5 * 0.3 / np.sqrt(n))
    covariance = points.T @ points / n
    assert np.abs(covariance - np.eye(dimensions) / (dimensions + 2)).max() < 6 / ((dimensions + 2) * np.sqrt(n / 2))
    assert np.abs(points.mean(axis=0)).max() < 6 / np.sqrt(n * (dimensions + 2))


# settings


def test_settings_have_their_defaults_and_refuse_what_is_not_read() -> None:
    assert RobustSettings(method="adversarial").epsilon < RobustSettings(method="random").epsilon
    assert RobustSettings(method="random", epsilon=0.05).epsilon == 0.05
    settings = RobustSettings(method="adversarial", steps=5)
    assert RobustSettings.model_validate(settings.stored()) == settings
    assert RobustSettings.model_validate(settings.model_dump()) == settings
    wrong: list[dict[str, Any]] = [
        {"method": "random", "steps": 5}, {"method": "adversarial", "copies": 2}, {"method": "synonym"},
        {"method": "synonym", "synonyms": "x", "epsilon": 0.2}, {"method": "random", "synonyms": "x"},
        {"method": "adversarial", "epsilon": -0.1}, {"method": "adversarial", "epsilon": float("nan")},
        {"method": "adversarial", "steps": 0}, {"method": "virtual"},
    ]  # fmt: skip
    for numbers in wrong:
        with pytest.raises(ValidationError):
            RobustSettings.model_validate(numbers)


def test_only_classification_is_trained_robustly() -> None:
    settings = RobustSettings(method="random")
    refused = set()
    for task in TASKS.values():
        try:
            check_robust(task, settings)
        except UserError:
            refused.add(task.format)
    assert refused == set(FORMATS) - {"classification"}


# synonyms


def neighbours(**of: str) -> Neighbours:
    return Neighbours({word: tuple(synonyms.split()) for word, synonyms in of.items()}, "0" * 64, "words.txt")


def pairs(*texts: tuple[str, str]) -> Rows:
    columns = {"text_a": [a for a, _ in texts], "text_b": [b for _, b in texts], "label": list(range(len(texts)))}
    return Rows("mnli", "en", "train", columns, "rows", "rows.tsv")


def read_text(tmp_path: Path, text: str | bytes) -> Neighbours:
    path = tmp_path / "words.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_neighbours(path)


def test_a_file_gives_words_and_their_neighbours(tmp_path: Path) -> None:
    found = read_text(tmp_path, "big\tlarge  huge\r\nParis\tLutetia\ndon't\tnever\nété\tsaison\n\n")
    assert found.of == {"big": ("large", "huge"), "paris": ("Lutetia",), "don't": ("never",), "été": ("saison",)}
    assert read_text(tmp_path, "big\tlarge\n").identity != found.identity


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("big\tlarge\nsmall little\n", 2),
        ("big\t\n", 1),
        ("big\tlarge\n\nsmall\tlittle\n", 2),
        ("big\tlarge\thuge\n", 1),
        ("big\tvery\u00a0large\n", 1),
        ("big\tlarge\nsmall\tlittle\nBig\thuge\n", 3),
        ("big\tlarge large\n", 1),
        ("big\tlarge Big\n", 1),
        ("\tlarge\n", 1),
        ("ice-cream\tdessert\n", 1),
        ("very big\tlarge\n", 1),
        (b"big\tlarge\ncaf\xe9\tbar\n", 2),
    ],
)
def test_other_lines_are_refused_with_their_number(tmp_path: Path, text: str | bytes, line: int) -> None:
    with pytest.raises(UserError, match=rf"words\.txt, line {line}\b"):
        read_text(tmp_path, text)


def test_an_empty_or_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"words\.txt"):
        read_text(tmp_path, "\n")
    with pytest.raises(UserError, match=r"absent\.txt"):
        read_neighbours(tmp_path / "absent.txt")


def test_each_word_is_a_uniform_draw_from_itself_and_its_synonyms() -> None:
    n = 30_000
    copies = synonym_copies(pairs(("big cat", "a big dog")), neighbours(big="large huge", dog="hound"), copies=n, seed=0)  # fmt: skip
    counts = Counter(zip(copies.columns["text_a"], copies.columns["text_b"], strict=True))
    sizes, dogs = ("big", "large", "huge"), ("dog", "hound")
    expected = {(f"{a} cat", f"a {b} {c}") for a in sizes for b in sizes for c in dogs}
    assert set(counts) == expected
    assert all(abs(count - n / 18) < 5 * (n / 18) ** 0.5 for count in counts.values())


def test_copies_stand_together_with_their_labels() -> None:
    rows = pairs(("a big cat", "one"), ("a cat", "two"), ("no word", "three"))
    copies = synonym_copies(rows, neighbours(cat="tomcat"), copies=4, seed=1)
    assert copies.columns["label"] == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    assert copies.columns["text_b"] == [text for text in ("one", "two", "three") for _ in range(4)]
    assert set(copies.columns["text_a"][4:8]) <= {"a cat", "a tomcat"}
    assert len(copies) == 12
    assert rows.columns["text_a"][0] == "a big cat"


def test_draws_depend_on_seed_row_and_copy_alone() -> None:
    known, texts = neighbours(big="large huge vast", cat="tomcat"), [("big cat", "big big"), ("cat", "big"), ("big", "cat big")]  # fmt: skip
    whole = synonym_copies(pairs(*texts), known, copies=6, seed=3)
    fewer = synonym_copies(pairs(*texts), known, copies=2, seed=3)
    assert [whole.columns["text_a"][i] for i in (0, 1, 6, 7, 12, 13)] == fewer.columns["text_a"]
    others = synonym_copies(pairs(("x", "y"), *texts[1:]), known, copies=6, seed=3)
    assert others.columns["text_b"][6:] == whole.columns["text_b"][6:]
    again = synonym_copies(pairs(*texts), known, copies=6, seed=3)
    assert again == whole
    other = synonym_copies(pairs(*texts), known, copies=6, seed=4)
    assert other.columns["text_a"] != whole.columns["text_a"]
    identities = {rows.identity for rows in (whole, fewer, other, pairs(*texts))}
    assert len(identities) == 4
    assert synonym_copies(pairs(*texts), replace(known, identity="1" * 64), copies=6, seed=3).identity not in identities


def test_draws_are_the_same_in_every_process() -> None:
    code = (
        "from pathlib import Path\n"
        "from xadapt.data.rows import Rows\n"
        "from xadapt.data.synonyms import read_neighbours, synonym_copies\n"
        "rows = Rows('mnli', 'en', 'train', {'text_a': ['A big old happy doctor buys a new cheap hotel']}, '', '')\n"
        f"print(*synonym_copies(rows, read_neighbours(Path({str(DEMO)!r})), copies=5, seed=9).columns['text_a'])\n"
    )
    outputs = {
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=DEMO.parents[1],
                       env=os.environ | {"PYTHONHASHSEED": seed}).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(outputs) == 1
    assert len(set(outputs.pop().split("A "))) > 3


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("big", "large"), ("Big", "Large"), ("BIG", "LARGE"), ("bIG", "large"), ("cat", "iPet"), ("Cat", "IPet"),
        ("I", "Me"), ("i", "me"), ("don't", "never"), ("DON'T", "NEVER"), ("été", "saison"), ("ÉTÉ", "SAISON"),
    ],
)  # fmt: skip
def test_case_is_kept(word: str, expected: str) -> None:
    known = neighbours(big="large", cat="iPet", i="me", **{"don't": "never", "été": "saison"})
    drawn = set(synonym_copies(pairs((word, "")), known, copies=50, seed=0).columns["text_a"])
    assert drawn == {word, expected}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("big,  big!\tbig-big", "X,  X!\tX-X"),
        ("'big' \u201cbig\u201d (big)", "'X' \u201cX\u201d (X)"),
        ("bigger big2 2big _big_ ebig", "bigger X2 2X _X_ ebig"),
        ("big's big\u2019s bigs'", "big's big\u2019s bigs'"),
        ("big\u0301 e\u0301big", "big\u0301 e\u0301big"),
        ("  ", "  "),
        ("大big", "大big"),
    ],
)
def test_what_stands_between_words_is_kept(text: str, expected: str) -> None:
    draws = synonym_copies(pairs((text, "big")), neighbours(big="X"), copies=200, seed=0).columns["text_a"]
    if text == expected:
        assert set(draws) == {text}
    assert expected in draws
    assert all(draw.replace("X", "big") == text for draw in draws)


def test_single_texts_are_copied_too() -> None:
    rows = Rows("topics", "en", "train", {"text_a": ["big cat"], "label": [1]}, "rows", "rows.tsv")
    copies = synonym_copies(rows, neighbours(cat="tomcat"), copies=3, seed=0)
    assert set(copies.columns) == {"text_a", "label"}
    assert len(copies) == 3


@pytest.mark.parametrize("task", ["udpos", "squad", "hellaswag"])
def test_other_formats_are_refused_by_name(task: str) -> None:
    rows = EmbeddedSource().load(get_task(task), "en", "train", limit=2)
    with pytest.raises(UserError, match=rf"{task}.*{get_task(task).format}"):
        synonym_copies(rows, neighbours(the="a"), copies=2, seed=0)


def test_a_file_that_changes_no_word_is_refused() -> None:
    with pytest.raises(UserError, match=r"words\.txt"):
        synonym_copies(pairs(("a cat", "a dog")), neighbours(haus="heim"), copies=2, seed=0)


def test_the_demo_file_changes_most_rows_of_the_suite() -> None:
    rows = EmbeddedSource().load(get_task("mnli"), "en", "train", limit=200)
    copies = synonym_copies(rows, read_neighbours(DEMO), copies=3, seed=0)
    originals = [text for text in rows.columns["text_a"] for _ in range(3)]
    changed = sum(a != b for a, b in zip(originals, copies.columns["text_a"], strict=True))
    assert changed > 0.3 * len(copies)
    assert not set(copies.columns["text_a"]) <= set(originals)
