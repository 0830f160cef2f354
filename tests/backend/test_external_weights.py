"""Weights beside the file: because they do not fit, or because prediction and explanation share them."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import relcompile
from relcompile.backend import onnx_file
from relcompile.errors import ExplainerFileError, ExportError
from relcompile.files.seal import WEIGHTS_KEY
from tests.cli.test_cli import files, run, small_network
from tests.compare import ONNX, assert_close
from tests.runtime.test_runtime import write


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 40, 3), nn.ReLU(), nn.Flatten(), nn.Linear(640, 70), nn.BatchNorm1d(70)).eval()


X = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(1))
TARGET = torch.tensor([1, 6, 0])


@pytest.fixture(scope="module")
def explainer() -> relcompile.Explainer:
    return relcompile.compile(network(), X, rule="z+")


def weights_of(folder: Path) -> Path:
    (found,) = folder.glob("*.weights")
    return found


def test_what_does_not_fit_lies_beside(
    explainer: relcompile.Explainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    explainer.save(tmp_path / "whole.onnx")
    monkeypatch.setattr(onnx_file, "MOST_INSIDE", 50_000)
    explainer.save(tmp_path / "e.onnx")
    assert (tmp_path / "e.onnx").stat().st_size < 30_000 < weights_of(tmp_path).stat().st_size
    found, whole = (relcompile.load(tmp_path / name, device="cpu").explain(X.numpy(), target=TARGET.numpy())
                    for name in ("e.onnx", "whole.onnx"))  # fmt: skip
    assert_close(found.relevance, whole.relevance, 1e-6)
    assert_close(found.relevance, explainer(X, TARGET)[1], ONNX)


def test_a_pair_shares_its_weights(explainer: relcompile.Explainer, tmp_path: Path) -> None:
    explainer.save(tmp_path / "e.onnx", pair=True)
    weights = weights_of(tmp_path)
    assert files(tmp_path) == {"e.onnx", "e.predict.onnx", weights.name}
    single = sum(parameter.numel() for parameter in network().parameters()) * 4
    assert single <= weights.stat().st_size <= single + 5 * 4096  # pages; once for both
    assert max((tmp_path / name).stat().st_size for name in ("e.onnx", "e.predict.onnx")) < single / 2
    prediction = onnx.load(tmp_path / "e.predict.onnx", load_external_data=False)
    assert [value.name for value in prediction.graph.input] == ["input"]
    assert len(prediction.graph.node) <= 4
    onnx.checker.check_model(str(tmp_path / "e.predict.onnx"), full_check=True)
    session = onnxruntime.InferenceSession(str(tmp_path / "e.predict.onnx"), providers=["CPUExecutionProvider"])
    assert_close(session.run(None, {"input": X.numpy()})[0], network()(X).detach(), ONNX)
    loaded = relcompile.load(tmp_path / "e.onnx", device="cpu")
    assert_close(loaded.explain(X.numpy(), target=TARGET.numpy()).relevance, explainer(X, TARGET)[1], ONNX)
    found = loaded.explain_if(lambda output: output[:, 0] == output[:, 0].max(), X.numpy(), target=TARGET.numpy())
    assert found.explanation is not None
    best = network()(X)[:, 0].argmax()
    assert found.explained.tolist() == [row == best for row in range(3)]
    assert_close(found.explanation.relevance, explainer(X, TARGET)[1][best : best + 1], ONNX)


def test_a_pair_of_two_networks_is_none(explainer: relcompile.Explainer, tmp_path: Path) -> None:
    torch.manual_seed(1)
    other = relcompile.compile(nn.Sequential(nn.Flatten(), nn.Linear(72, 70)).eval(), X, rule="z+")
    other.save(tmp_path / "other.onnx", pair=True)
    explainer.save(tmp_path / "e.onnx", pair=True)
    (tmp_path / "other.predict.onnx").rename(tmp_path / "e.predict.onnx")
    with pytest.raises(ExplainerFileError, match=r"e\.predict\.onnx is not the prediction of .*e\.onnx"):
        relcompile.load(tmp_path / "e.onnx", device="cpu").predict(X.numpy())


@pytest.mark.parametrize("damage", ["a byte", "nothing there"])
def test_weights_of_another_kind_are_refused(damage: str, explainer: relcompile.Explainer, tmp_path: Path) -> None:
    explainer.save(tmp_path / "e.onnx", pair=True)
    weights = weights_of(tmp_path)
    content = bytearray(weights.read_bytes())
    content[100] ^= 1
    weights.write_bytes(content) if damage == "a byte" else weights.unlink()
    with pytest.raises(ExplainerFileError, match="damaged or changed" if damage == "a byte" else "weights"):
        relcompile.load(tmp_path / "e.onnx", device="cpu")


@pytest.mark.parametrize("name", ["", "..", "a/b", "/"])
def test_weights_have_the_name_of_a_file(name: str, tmp_path: Path) -> None:
    model = onnx.load(write(tmp_path / "e.onnx"))
    model.metadata_props.add(key=WEIGHTS_KEY, value=f"{'0' * 64} {name}")
    onnx.save(model, tmp_path / "e.onnx")
    with pytest.raises(ExplainerFileError, match=r"is not the name of a file|it is a folder"):
        relcompile.load(tmp_path / "e.onnx", device="cpu")


def test_the_prediction_is_no_explainer(explainer: relcompile.Explainer, tmp_path: Path) -> None:
    explainer.save(tmp_path / "e.onnx", pair=True)
    with pytest.raises(ExplainerFileError, match="it is the prediction alone"):
        relcompile.load(tmp_path / "e.predict.onnx", device="cpu")


def test_a_pair_is_of_onnx_files(explainer: relcompile.Explainer, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"a pair of files is one of \.onnx files"):
        explainer.save(tmp_path / "e.pt2", pair=True)


def test_the_command_line_writes_a_pair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(small_network(), tmp_path / "model.pt")
    arguments = (tmp_path / "model.pt", "--input", "1x3x16x16", "--pair", "-o")
    code, out, err = run(*arguments, tmp_path / "e.onnx", capsys=capsys)
    assert code == 0, err
    assert "e.predict.onnx" in out
    assert files(tmp_path) == {"model.pt", "e.onnx", "e.predict.onnx", weights_of(tmp_path).name}
    assert run(*arguments, tmp_path / "e.pt2", capsys=capsys)[0] == 2
    torch.save(small_network(), tmp_path / "m.predict.onnx")
    given = (tmp_path / "m.predict.onnx", "--input", "1x3x16x16", "--pair", "-o", tmp_path / "m.onnx")
    code, _, err = run(*given, capsys=capsys)
    assert (code, "would destroy the input" in err) == (2, True)
