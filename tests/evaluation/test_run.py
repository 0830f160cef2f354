"""From rules and measures to numbers and one line a rule, on networks whose truth is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyarrow import parquet
from torch import nn

from relcompile.errors import EvaluationError
from relcompile.evaluation import Results, Settings, Subject, evaluate, verdicts
from relcompile.evaluation.measures import MEASURES
from relcompile.evaluation.metrics import localisation, perturbation
from relcompile.evaluation.results import Row
from relcompile.evaluation.trial import Bench, Trial
from relcompile.evaluation.verdict import CSC, SSIM, verdict
from relcompile.question.options import Options
from tests.evaluation.networks import planted, small_cnn

FAST = Settings(steps=2, shares=(0.3, 0.6), draws=4, vectors=3)


def asked(*names: str) -> dict[str, Options]:
    return {name: Options(rule=name) for name in names}


@pytest.fixture(scope="module")
def found() -> Results:
    """Everything about two rules on a network with random weights."""
    images = torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    masks = np.zeros((4, 12, 12), bool)
    masks[:, :6] = True
    return evaluate(Subject(small_cnn(), images, masks), asked("z+", "gradient*input"), settings=FAST)


def test_every_measure_has_numbers(found: Results) -> None:
    measured = {row.metric for row in found.rows}
    wanted = {"csc", "random-logit", "cascade", "efficient-mprt", "singular-ratio", "srg", "morf", "lerf", "mass"}
    assert (
        wanted | {"sensitivity-n", "max-sensitivity", "relative-input-stability", "absorbed", "attack-hit"} <= measured
    )
    assert len(found.done) == 1 + 2 * (len(MEASURES) - 1)
    assert set(found.refused) == {"z+ roots", "gradient*input roots"}


def test_numbers_are_in_their_range(found: Results) -> None:
    ranges = {"csc": (0, 1), "random-logit": (-1, 1), "cascade-flipped": (-1, 1), "mass": (0, 1), "rank": (0, 1)}
    for metric, (low, high) in ranges.items():
        values = np.array([row.value for row in found.rows if row.metric == metric])
        assert len(values)
        assert (values[~np.isnan(values)] >= low).all()
        assert (values[~np.isnan(values)] <= high).all()


def test_z_plus_conserves_and_gradient_times_input_loses_to_biases(found: Results) -> None:
    """Shares of the score: z⁺ without bias loses nothing; x ⊙ gradient loses what its ledger says, layer by layer."""
    np.testing.assert_allclose(found.of("z+", "conservation", layer="input"), 1, rtol=1e-4)
    kept = found.of("gradient*input", "conservation", layer="input")
    lost = [found.of("gradient*input", "absorbed", layer=name) for name in found.layers("gradient*input", "absorbed")]
    assert np.abs(kept - 1).max() > 0.01
    np.testing.assert_allclose(kept + np.sum(lost, axis=0), 1, rtol=1e-3)


def test_seeds_make_it_repeatable(found: Results) -> None:
    subject = Subject(small_cnn(), torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(0)))
    rule, metric = "gradient*input", "random-logit"
    again = [evaluate(subject, asked(rule), [metric], replace(FAST, seed=seed)).of(rule, metric) for seed in (0, 5)]
    assert again[0].tolist() == found.of(rule, metric).tolist()
    assert again[1].tolist() != found.of(rule, metric).tolist()


def test_a_rule_that_ignores_the_top_is_called_so() -> None:
    """Nonnegative dense layers of rank 1 above a convolution: no rule can tell classes apart but by their sign."""
    network = small_cnn()
    for name in ("6.weight", "8.weight"):
        weight = network.get_parameter(name)
        weight.data = torch.ones_like(weight) * torch.rand(weight.shape[1]) / weight.shape[1]
    images = torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    results = evaluate(Subject(network, images), asked("z+"), ["csc", "random-logit"], FAST)
    (line,) = verdicts(results)
    assert line.standing == "ignores"
    assert line.ignored_above == "6"
    assert line.sentence.startswith("ignores everything above 6: random-logit SSIM 1.000")


def test_signals_are_those_of_the_report() -> None:
    """Root and signal at the input are at the distance that `--roots` reports, and leave what it says is left."""
    network, images = small_cnn(), torch.randn(3, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    results = evaluate(Subject(network, images), asked("root=3"), ["roots"], FAST)
    assert not results.refused
    signal = Trial(Bench(Subject(network, images), FAST), "root=3", asked("root=3")["root=3"]).signals()
    with torch.no_grad():
        first, of_root = network[0](images), network[0](images - signal)
        scores = {"root": network(images - signal), "signal": network(signal), "x": network(images)}
    ratios = {"|root| / |x|": (images - signal, images), "|f(root)| / |f(x)|": (of_root, first)}
    for quantity, (part, whole) in ratios.items():
        expected = part.flatten(1).norm(dim=1) / whole.flatten(1).norm(dim=1)
        found = results.of("root=3", f"root {quantity}", layer="0")
        np.testing.assert_allclose(found, expected, rtol=1e-4)
        assert (found > 0.05).all()
    for shown, answers in scores.items():
        own = answers.gather(1, scores["x"].argmax(1)[:, None])[:, 0]
        np.testing.assert_allclose(results.of("root=3", "answer", layer=shown), own, rtol=1e-4)


def test_planted_truth_sorts_good_wrong_and_noise() -> None:
    """The square that is read, flipped relevance (wrong), and random maps, by mass and rank in the mask."""
    network, images, masks = planted()
    good = evaluate(Subject(network, images, masks), asked("gradient*input"), ["localisation", "srg"], FAST)
    wrong = 1 - masks.astype(float)
    random = np.random.default_rng(0).random(masks.shape)
    for name in ("mass", "rank"):
        metric = getattr(localisation, name)
        scores = [
            float(good.of("gradient*input", name).mean()),
            float(np.mean([metric(r, m) for r, m in zip(random, masks, strict=True)])),
            float(np.mean([metric(w, m) for w, m in zip(wrong, masks, strict=True)])),
        ]
        assert scores[0] == pytest.approx(1)
        assert scores[0] > scores[1] + 0.5
        assert scores[1] == pytest.approx(masks.mean(), abs=0.05)
        assert scores[2] == 0
    segments, shares = perturbation.patches(16, 16, 1), (0.1, 0.5)

    def srg(maps: np.ndarray) -> float:
        rank = perturbation.ranks(torch.from_numpy(maps), segments)
        score = lambda x: network(x).detach()[:, 0]  # noqa: E731
        values = perturbation.curves(score, images, torch.zeros_like(images), rank, segments, shares)
        return float(perturbation.srg(values.detach().numpy(), shares).mean())

    assert srg(masks.astype(float)) > srg(random) + 0.1 > srg(wrong) + 0.2
    assert good.of("gradient*input", "srg").mean() > 0


def test_superpixels_are_removed_as_patches_are() -> None:
    """Four squares of four colours are four superpixels: taking them one by one is taking the patches."""
    images = torch.tensor([0.0, 1.0, 3.0, 2.0]).reshape(1, 1, 2, 2).repeat_interleave(8, 2).repeat_interleave(8, 3)
    subject = Subject(planted()[0], images)
    ways = (replace(FAST, patch=8, shares=(0.5,)), replace(FAST, superpixels=4, shares=(0.5,)))
    found = [evaluate(subject, asked("gradient*input"), ["srg"], way).of("gradient*input", "srg") for way in ways]
    assert found[0].tolist() == found[1].tolist()
    assert found[0][0] != 0


def rows(rule: str, **metrics: list[float]) -> list[Row]:
    return [
        Row(rule, name.replace("_", "-"), k, value, layer="input" if name == "csc" else "", step=0.5)
        for name, values in metrics.items()
        for k, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("csc", "ssim", "standing"),
    [
        (CSC.value, SSIM.value, "ignores"),
        (CSC.value - 1e-3, SSIM.value - 1e-3, "sensitive"),
        (CSC.value, 0.5, "mixed"),
        (0.5, SSIM.value, "mixed"),
        (None, 0.5, "sensitive"),
        (None, 0.95, "ignores"),
        (None, None, "unknown"),
    ],
)
def test_thresholds(csc: float | None, ssim: float | None, standing: str) -> None:
    given = {"csc": csc, "random_logit_flipped": ssim}
    results = Results({"rules": ["a"], "shape": [3, 3, 8, 8]})
    results.add(rows("a", **{name: [value] * 3 for name, value in given.items() if value is not None}))
    assert verdict(results, "a").standing == standing


def test_what_has_converged_at_the_input_alone_ignores_no_layer() -> None:
    facts = {"rules": ["a"], "shape": [3, 3, 8, 8]}
    results = Results(facts, rows("a", csc=[0.995] * 3, random_logit_flipped=[0.95] * 3))
    results.add([Row("a", "csc", k, 0.9, "conv1", 0.5) for k in range(3)])
    found = verdict(results, "a")
    assert (found.standing, found.ignored_above) == ("ignores", None)
    assert found.sentence.startswith("ignores the class: random-logit SSIM 0.950")


def test_chance_is_said() -> None:
    facts = {"rules": ["a"], "shape": [3, 3, 8, 8]}
    chance, better = (Results(facts, rows("a", srg=srg)) for srg in ([-0.1, 0.1, 0.0, 0.05], [0.2, 0.3, 0.25, 0.2]))
    assert "no better than chance" in verdict(chance, "a").sentence
    assert "chance" not in verdict(better, "a").sentence


def test_results_come_back_from_their_file(found: Results, tmp_path: Path) -> None:
    found.save(tmp_path / "run.parquet")
    again = Results.load(tmp_path / "run.parquet")
    assert [str(row) for row in again.rows] == [str(row) for row in found.rows]
    assert (again.facts, again.done, again.refused, again.shown) == (
        found.facts,
        found.done,
        found.refused,
        found.shown,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"done": None}, "it.done is null"),
        ({"done": [["z+"]]}, "pairs of a rule and a measure"),
        ({"facts": {"rules": ["z+"]}}, "facts lacks shape"),
        ({"facts": {"rules": ["z+"], "shape": [3]}}, "shape has no channels"),
        ({"refused": {"z+ csc": 1}}, "it.refused.z\\+ csc is 1"),
        ({"shown": {"z+": {"layers": []}}}, "shown.z\\+ lacks pictures"),
        ({"format": 2}, "another version"),
    ],
)
def test_damaged_files(found: Results, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    found.save(tmp_path / "run.parquet")
    table = parquet.read_table(tmp_path / "run.parquet")
    ((key, text),) = table.schema.metadata.items()
    changed = table.replace_schema_metadata({key: json.dumps(json.loads(text) | change)})
    parquet.write_table(changed, tmp_path / "run.parquet")
    with pytest.raises(EvaluationError, match=message):
        Results.load(tmp_path / "run.parquet")


@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        (torch.zeros(2, 3), None, "want floats"),
        (torch.zeros(2, 3, 4, 4), None, "5 x 5 pixels"),
        (torch.zeros(2, 3, 12, 12), np.zeros((2, 4, 4), bool), "want one for every picture"),
    ],
)
def test_wrong_subjects(images: torch.Tensor, masks: np.ndarray | None, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        Subject(small_cnn(), images, masks)


def test_networks_that_return_no_scores_of_classes() -> None:
    with pytest.raises(EvaluationError, match="want scores"):
        Subject(nn.Sequential(nn.Conv2d(3, 2, 3)), torch.zeros(2, 3, 12, 12))


def test_the_page_names_every_metric() -> None:
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    rows = [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")]
    assert set(MEASURES) <= set(rows)
