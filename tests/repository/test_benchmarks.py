from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import relcompile

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def tiny() -> torch.nn.Module:
    torch.manual_seed(0)
    layers = (torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    return torch.nn.Sequential(*layers, torch.nn.Linear(4, 5)).eval()


@pytest.mark.parametrize("name", sorted(path.stem for path in BENCHMARKS.glob("*.py")))
def test_imports_and_explains_its_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    with pytest.raises(SystemExit, match="0"):
        module.main(["--help"])
    assert str(module.__doc__).splitlines()[0] in capsys.readouterr().out


def test_speed_compares_with_the_forward_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks import speed

    monkeypatch.setattr(speed.models, "get_model", lambda _name: tiny())
    file = tmp_path / "speed.json"
    arguments = ["--networks", "tiny", "--size", "12", "--rounds", "2", "--json", str(file)]
    rows = speed.main([*arguments, "--rules", "epsilon=0.25"])
    assert [(row.rule, row.limit) for row in rows] == [("forward", 1), ("epsilon=0.25", 2)]
    assert rows[0].timing.wall_ratio == 1
    assert all(row.nodes > rows[0].nodes and row.timing.wall_ms > 0 for row in rows[1:])
    assert len(json.loads(file.read_text(encoding="utf-8"))) == 2
    assert "epsilon=0.25" in capsys.readouterr().out


def test_a_device_is_compared_with_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import device

    monkeypatch.setattr(device.models, "get_model", lambda _name: tiny())
    arguments = ["--device", "cpu", "--networks", "tiny", "--size", "12", "--batches", "1", "3", "--rounds", "2"]
    rows = device.main([*arguments, "--rules", "epsilon=0.25"])
    assert [(row.rule, row.batch) for row in rows] == [("epsilon=0.25", 1), ("epsilon=0.25", 3)]
    assert all(row.predict > 0 and row.explain > 0 and row.difference < 1e-5 for row in rows)


def test_conditions_are_measured_beside_single_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import conditions

    monkeypatch.setattr(conditions.models, "get_model", lambda _name: tiny())
    arguments = ["--network", "tiny", "--layers", "0", "--rules", "z+", "--size", "12", "--rounds", "2"]
    (row,) = conditions.main([*arguments, "--conditions", "3"])
    assert (row.rule, row.layer, row.limit) == ("z+", "0", 5 / 9)
    assert min(row.one, row.together, row.share, row.share_of_zennit) > 0


def test_all_rules_measures_every_rule_and_names_what_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks import all_rules

    monkeypatch.setattr(all_rules.models, "get_model", lambda _name: tiny())
    file = tmp_path / "rows.json"
    rules = ["z+", "zb", "patternattribution", "z++"]
    options = ["--networks", "tiny", "--size", "12", "--rounds", "2", "--json", str(file)]
    rows = all_rules.main([*options, "--rules", *rules])
    assert [row.rule for row in rows] == rules
    assert all(row.ratio > 0 and row.nodes > 0 and 0 < row.parity < 1e-3 and not row.failure for row in rows[:-1])
    assert "nearest: z+" in rows[-1].failure
    assert [row["rule"] for row in json.loads(file.read_text(encoding="utf-8"))] == rules
    printed = capsys.readouterr().out
    assert "patternattribution" in printed
    assert "nearest" in printed


def test_rival_computes_the_same_relevance() -> None:
    from benchmarks import rival

    pytest.importorskip("zennit", reason="the rival is zennit")
    theirs, ours = rival.compare(tiny(), torch.randn(1, 3, 12, 12), "epsilon", rounds=1, threads=1)
    assert (theirs.dynamic_batch, ours.dynamic_batch) == (False, True)
    assert theirs.difference < 1e-4
    assert ours.difference < 1e-3


@pytest.mark.parametrize("rule", ["z+", "alpha2beta1", "gamma"])
def test_convergence_is_that_of_hooks(rule: str) -> None:
    from benchmarks import csc
    from tests.evaluation.networks import small_cnn

    pytest.importorskip("zennit", reason="compared with zennit")
    network, images = small_cnn(), torch.rand(2, 3, 12, 12)
    for name, parameter in network.named_parameters():
        parameter.data.mul_(0 if name.endswith("bias") else 1)
    row = csc.compare(relcompile.capture(network, images), rule, images, vectors=2)
    assert row.difference < 1e-3  # zennit adds 1e-6 to every denominator
    assert row.similarity < 1e-3
    assert min(row.ours, row.theirs) > 0


def test_faithfulness_compares_with_the_first_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks import faithfulness
    from benchmarks.parts import networks

    images = torch.randn(6, 3, 12, 12)
    subject = networks.Subject("tiny", tiny(), images, torch.zeros(6, dtype=torch.int64), 2, (-2.0, 2.0))
    monkeypatch.setattr(networks, "trained", lambda _name, _cache: subject)
    arguments = ["--networks", "vgg", "--start", "0", "--images", "6", "--json", str(tmp_path / "rows.json")]
    rows = faithfulness.main([*arguments, "--rules", "root", "epsilon", "z+@flat"])
    assert [row.rule for row in rows] == ["root", "epsilon", "z+@flat"]
    assert rows[0].gain == (0.0, 0.0, 0.0)
    assert rows[1].gain[0] == pytest.approx(rows[0].area - rows[1].area)
    assert all(row.low <= row.area <= row.high for row in rows)
    assert "gain of root" in capsys.readouterr().out


def test_xai_tris_knows_where_the_truth_is() -> None:
    """Every scenario has its truth where its classes differ; right maps score 1, and a network learns the task."""
    from benchmarks import xai_tris

    rng = np.random.default_rng(0)
    for scenario in xai_tris.SCENARIOS:
        sample = xai_tris.generate(scenario, "white", 40, rng)
        assert sample.labels.float().mean() == 0.5
        assert sample.truth.sum((1, 2)).tolist() == [4 if scenario == "rigid" else 8] * 40
        truth = sample.truth[0]
        assert xai_tris.precision(truth.astype(float), truth) == xai_tris.emd(truth.astype(float), truth) == 1
        assert xai_tris.precision(1 - truth.astype(float), truth) == 0
        assert xai_tris.emd(1 - truth.astype(float), truth) < 0.9


def test_xai_tris_finds_rules_that_find_the_truth(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks import xai_tris

    options = ["--scenarios", "rigid", "--backgrounds", "white", "--repetitions", "1", "--number", "2000"]
    scores = {score.rule: score for score in xai_tris.main([*options, "--epochs", "6", "--rules", "gradient*input"])}
    assert scores["gradient*input"].precision.low > scores["(random)"].precision.high
    assert "% right" in capsys.readouterr().out


def test_performance_measures_writes_and_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import performance
    from benchmarks.parts import report, ways

    monkeypatch.setattr(ways.models, "get_model", lambda _name: tiny())
    monkeypatch.setattr(performance, "growth", lambda first: {"depth": [replace(first, network="tiny1"), first]})
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n\n{report.BEGIN}\nold\n{report.END}\n\n## Next\n", encoding="utf-8")
    files = ("--csv", tmp_path / "rows.csv", "--markdown", page, "--plot", tmp_path / "growth.png")
    small = ("--networks", "tiny0", "--size", 12, "--batches", 2, "--questions", 1, 3, "--threads", 1, "--rounds", 3)
    compared = (ways.FORWARD, ways.OURS, "autograd, eager", "zennit, eager", ways.ZENNIT_TRACED)
    command = [*map(str, (*small, "--rules", "epsilon", "--ways", *compared, *files))]
    rows = performance.main(command)
    table = rows[: 2 * len(compared)]
    measured = {(row.questions, row.way) for row in table if not row.failure}
    failed = {(row.questions, row.way): row.failure for row in table if row.failure}
    assert measured == {*((k, way) for k in (1, 3) for way in (*compared[:2], compared[3])), (1, ways.ZENNIT_TRACED)}
    assert failed[1, "autograd, eager"] == "autograd computes gradients"
    assert failed[3, ways.ZENNIT_TRACED] == "what is traced answers one question"
    ours = next(row for row in table if row.way == ways.OURS and row.questions == 3)
    assert ours.low <= ours.ms <= ours.high  # type: ignore[operator]
    assert (ours.limit, ours.batch) == (4, 2)
    assert min(ours.peak_mb, ours.file_mb, ours.nodes, ours.torch_s, ours.own_s) > 0  # type: ignore[type-var]
    assert len((tmp_path / "rows.csv").read_text(encoding="utf-8").splitlines()) == len(rows) + 1
    text = page.read_text(encoding="utf-8")
    assert "old" not in text
    assert "![How the cost grows](growth.png)" in text
    assert text.endswith(f"{report.END}\n\n## Next\n")
    assert text.count("`epsilon` | relcompile, ONNX Runtime | 12 | 2 |") == 2
    assert (tmp_path / "growth.png").stat().st_size > 1000
    monkeypatch.delattr(performance, "measure")  # nothing is measured twice
    assert performance.main(command) == rows
    assert page.read_text(encoding="utf-8") == text


def test_the_sample_of_performance_is_what_is_promised() -> None:
    from benchmarks import performance
    from benchmarks.parts import ways

    cases = {case: compared for cases, compared in performance.sample(224) for case in cases}
    networks = {(case.network, case.rule, case.batch) for case in cases if case.questions == 1}
    assert {("vgg16", "gamma", 8), ("resnet50", "alpha2beta1", 1), ("mobilenet_v2", "epsilon", 8)} <= networks
    assert {case.rule for case in cases if case.questions == 10} == {"gradient", "epsilon", "z+"}
    assert all(ways.OURS in compared and case.threads == 2 for case, compared in cases.items())
    assert all(case.passes is not None for case in cases)
