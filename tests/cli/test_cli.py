"""The command line as a user meets it: files it writes, messages it prints, and wrong input."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import relcompile
from relcompile.cli import main as cli
from relcompile.cli.input_specs import default_specs
from relcompile.errors import CompositeError, ExplainerFileError, InputSpecError
from relcompile.methods.composites import Entry
from relcompile.methods.rules.input_layer import Flat
from relcompile.methods.spelling import layer_entry, named


class Factorial(nn.Module):
    """Holds operators without a rule."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.lgamma(self.mix(x))


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    )


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.save(small_network(), tmp_path / "model.pt")
    return tmp_path / "model.pt"


def run(*arguments: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `relcompile ARGUMENTS`."""
    argv, sys.argv = sys.argv, ["relcompile", *map(str, arguments)]
    try:
        cli.main()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.argv = argv
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_compile_explain_inspect(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(model, "--rule", "z+", "--input", "1x3x16x16", capsys=capsys)
    assert code == 0, err
    assert "relevance" in out
    assert "convolution" in out
    assert files(tmp_path) == {"model.pt", "model.z+.onnx"}
    code, out, err = run("inspect", tmp_path / "model.z+.onnx", capsys=capsys)
    assert code == 0, err
    assert "AlphaBeta" in out
    pixels = np.random.default_rng(0).integers(0, 255, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    code, out, err = run(
        "explain", tmp_path / "model.z+.onnx", tmp_path / "photo.png", "-o", tmp_path / "maps", capsys=capsys
    )
    assert code == 0, err
    assert files(tmp_path / "maps") == {"photo.model.z+.png", "photo.model.z+.npz"}
    arrays = np.load(tmp_path / "maps" / "photo.model.z+.npz")
    assert arrays["relevance"].shape == (3, 16, 16)
    assert arrays["relevance"].sum() == pytest.approx(arrays["output"].max(), abs=0.5)


@pytest.mark.parametrize(
    ("options", "shape", "told"),
    [
        (["--rule", "grad-cam"], (1, 16, 16), "read at layer │ 1"),
        (["--rule", "grad-cam", "--at", "0"], (1, 16, 16), "read at layer"),
        (["--at", "2"], (4, 7, 7), "read at layer"),
        (["--rule", "smoothgrad=2"], (3, 16, 16), "noise (batch x 2 x 3 x 16 x 16)"),
        (["--rule", "contrastive-lrp", "--target", "argmax"], (3, 16, 16), "rule"),
    ],
)
def test_maps_of_other_methods(
    options: list[str],
    shape: tuple[int, ...],
    told: str,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    explainer, photo = tmp_path / "explainer.onnx", tmp_path / "photo.png"
    code, _, err = run(model, *options, "--input", "1x3x16x16", "-o", explainer, capsys=capsys)
    assert code == 0, err
    assert told in " ".join(run("inspect", explainer, capsys=capsys)[1].split())
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(photo)
    code, _, err = run("explain", explainer, photo, "-o", tmp_path / "maps", capsys=capsys)
    assert code == 0, err
    assert len(files(tmp_path / "maps")) == 2
    (arrays,) = (tmp_path / "maps").glob("photo.*.npz")
    assert np.load(arrays)["relevance"].shape == shape


def test_rules_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run("rules", capsys=capsys)
    assert code == 0
    assert "excitation-backprop" in out
    assert "Montavon" in out
    assert "convolution" in run("rules", "--operators", capsys=capsys)[1]
    assert "fixed-root" in run("rules", "--layer", capsys=capsys)[1]


def test_rule_of_one_layer(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(model, "--layer", "0=flat", "--input", "1x3x16x16", "-o", tmp_path / "x.onnx", capsys=capsys)
    assert code == 0, err
    assert "Flat(" in out


def test_reference(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [model, "--rule", "deeplift-rescale", "--input", "1x3x16x16", "-o", tmp_path / "x.onnx"]
    np.save(tmp_path / "blurred.npy", np.full((3, 16, 16), 0.25, np.float32))
    for reference, kept in {"0.1,0.2,0.3": "0.1,0.2,0.3", "input": "input", tmp_path / "blurred.npy": "tensor"}.items():
        code, _, err = run(*arguments, "--reference", reference, capsys=capsys)
        assert code == 0, err
        assert kept in run("inspect", tmp_path / "x.onnx", capsys=capsys)[1]


SMALL = ["{model}", "--input", "1x3x16x16"]
UNIT = ["--mean", "0,0,0", "--std", "1,1,1"]
BAD: dict[str, tuple[list[str], str]] = {
    "missing file": (["{missing}"], "cannot be read"),
    "text file": (["{text}"], "text.pt"),
    "truncated checkpoint": (["{truncated}"], "truncated.pt"),
    "foreign pickle": (["{foreign}"], "--allow"),
    "unknown rule": (["{model}", "--rule", "z++"], "nearest: z+"),
    "bad parameter": (["{model}", "--rule", "epsilon=-1"], "epsilon=-1.0"),
    "no bounds": (["{model}", "--rule", "zb"], "--bounds"),
    "wrong input shape": (["{model}", "--input", "1x4x16x16"], "--input"),
    "unreadable input shape": (["{model}", "--input", "3by16"], "[name=]"),
    "no such class": (["{model}", "--input", "1x3x16x16", "--target", "7"], "5 classes"),
    "no such reference": (["{model}", "--rule", "deeplift-rescale", "--reference", "blur"], "an .npy file"),
    "reference without differences": (["{model}", "--input", "1x3x16x16", "--reference", "0"], "deeplift"),
    "no such layer": (["{model}", "--input", "1x3x16x16", "--layer", "head=flat"], "affine layers are"),
    "no such layer to read": (["{model}", "--input", "1x3x16x16", "--at", "head"], "there are: 0, 1, 2"),
    "no way to that layer": (["{model}", "--input", "1x3x16x16", "--rule", "grad-cam", "--at", "5"], "spatial"),
    "unwritable target": (["{model}", "--input", "1x3x16x16", "-o", "{nowhere}"], "cannot write"),
    "unknown suffix": (["{model}", "--input", "1x3x16x16", "-o", "out.txt"], "suffix"),
    "over the model": (["{archive}", "-o", "{archive}"], "would destroy the input"),
    "class names of another model": ([*SMALL, "--class-names", "{text}"], "1 class names for 5 classes"),
    "no such output": ([*SMALL, "--explained-output", "3"], "no floating point output 3"),
    "negative output": ([*SMALL, "--explained-output", "-1"], "no floating point output -1"),
    "no finite mean": (["{model}", "--mean", "nan,0,0", "--std", "1,1,1"], "not finite"),
    "no finite scale": (["{model}", *UNIT, "--scale", "inf"], "must be finite"),
    "two means": (["{model}", "--mean", "0.5,0.5", "--std", "1,1"], "one each for a grey photograph"),
    "no such order of channels": (["{model}", "--channels", "RGBA"], "RGB or BGR"),
    "no finite parameter": (["{model}", "--rule", "smoothgrad=inf"], "count=inf should be a finite number"),
    "no number": (["{model}", "--rule", "gamma=much"], "gamma=much should be a finite number"),
    "no parameters": (["{model}", "--rule", "flat=2"], "takes no =2; its parameters: none"),
    "no such parameter": (["{model}", "--rule", "z+,gamma=2"], "takes no gamma=2; its parameters: epsilon, bias"),
    "no such bias": (["{model}", "--rule", "z+,bias=half"], "must be one of none, split, full"),
    "no truth value": (["{model}", "--rule", "root-v3,unrolled=2"], "should be true or false"),
    "two rules of one layer": ([*SMALL, "--layer", "0=flat", "--layer", "0=gamma"], "no layer is left for Gamma"),
    "a glob before a name": ([*SMALL, "--layer", "*=gamma", "--layer", "0=flat"], "put the narrower one first"),
    "a rule of other operators": (
        [*SMALL, "--layer", "5=guided"],
        "not defined for name='5': affine",
    ),
    "no explainer": (["inspect", "{text}"], "text.pt"),
    "a model in place of an explainer": (["inspect", "{model}"], "not an explainer; compile it"),
    "a mistyped command": (["explian", "{model}"], "did you mean `relcompile explain`"),
    "a mean of other channels": ([*SMALL, "--mean", "0.5", "--std", "0.5"], "no photograph with 1 channels"),
    "wrong dtype": (["{model}", "--input", "1x3x16x16:float16"], "of half precision"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, message = BAD[name]
    (tmp_path / "text.pt").write_text("not a model")
    (tmp_path / "truncated.pt").write_bytes(model.read_bytes()[:-200])
    torch.save(Factorial(), tmp_path / "foreign.pt")
    places = {key: tmp_path / f"{key}.pt" for key in ("missing", "text", "truncated", "foreign")}
    (tmp_path / "archive.pt2").write_text("not an archive")
    places |= {"model": model, "archive": tmp_path / "archive.pt2", "nowhere": tmp_path / "nowhere" / "x.onnx"}
    before = files(tmp_path)
    code, out, err = run(*(argument.format(**places) for argument in arguments), capsys=capsys)
    assert code == 2, out
    assert message in err
    assert "Traceback" not in err
    assert files(tmp_path) == before


# content of a composite file, part of the message
BAD_COMPOSITES = {
    "rule = 3": "'rule' is not known; there are base, name, entry",
    "base = 3": "base = 3 should be of type str",
    "[[entries]]": "'entries' is not known; there are base, name, entry",
    "[entry]\nrule = 'flat'": "should be of type list; write [[entry]], in double brackets",
    "": "it is empty; a composite is a base and entries",
    "entry = ['flat']": "every [[entry]] is a table with a rule",
    "[[entry]]\nname = '0'": "every [[entry]] is a table with a rule",
    "[[entry]]\nrule = 3": "rule = 3 should be of type str",
    "[[entry]]\nrule = 'flat'\ndepth = 0.5": "depth = 0.5 should be of type list",
    "[[entry]]\nrule = 'flat'\ndepth = [0, 'a']": "should be two numbers",
    "[[entry]]\nrule = 'flat'\nfirst = 1": "first = 1 should be of type bool",
    "[[entry]]\nrule = 'flat'\nkind = 'Affine'": "kind='Affine' must be one of affine, pool",
    "[[entry]]\nrule = 'flat'\nrequired = true": "'required' is not known; there are rule, kind",
    "[[entry]]\nrule = 'flat'\nname = '9'": "no layer matches name='9'; the affine layers are: 0, 5",
    "[[entry]]\nrule = 'flat'\n[[entry]]\nrule = 'gamma'\nfirst = true": "no layer is left for Gamma",
    "[[entry]]\nrule = 'flat'\noperator = 'relu'": "not defined for operator='relu'",
    "base = 'mine.toml'": "rule 'mine.toml' is not known",
    "base = ": "mine.toml",
}


@pytest.mark.parametrize("content", BAD_COMPOSITES)
def test_bad_composite(content: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.toml").write_text(content)
    code, _, err = run(
        model, "--input", "1x3x16x16", "--rule", tmp_path / "mine.toml", "-o", tmp_path / "x.onnx", capsys=capsys
    )
    assert code == 2
    assert BAD_COMPOSITES[content] in err
    assert files(tmp_path) == {"model.pt", "mine.toml"}


def test_a_pt2_file_is_run_by_torch(tmp_path: Path) -> None:
    x, target = torch.randn(3, 3, 16, 16), torch.tensor([0, 2, 1])
    compiled = relcompile.compile(small_network(), torch.randn(1, 3, 16, 16))
    compiled.save(tmp_path / "x.pt2")
    loaded = torch.export.load(tmp_path / "x.pt2").module()
    torch.testing.assert_close(loaded(x, target), compiled(x, target))
    with pytest.raises(ExplainerFileError, match=r"torch.export.load\(path\)"):
        relcompile.load(tmp_path / "x.pt2")


def test_composite_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("""
        base = "alpha1.5beta0.5,bias=split"
        [[entry]]
        rule = "gamma=0.5,bias=plain"
        name = "*"
        last = true
        [[entry]]
        rule = "guided"
        name = "*"
    """)
    compiled = relcompile.compile(small_network(), torch.randn(1, 3, 16, 16), rule=str(tmp_path / "mine.toml"))
    assert compiled.metadata.rule == "mine"
    assert {record.name: record.rule for record in compiled.metadata.layers if record.kind != "pool"} == {
        "0": "AlphaBeta(alpha=1.5, beta=0.5, bias='split', epsilon=1e-09, products='magnitudes', absorbed='lost')",
        "1": "Guided()",
        "4": "Adjoint()",
        "5": "Gamma(gamma=0.5, bias='plain', epsilon=1e-06)",
    }


@pytest.mark.parametrize(
    ("layer", "rules"),
    [
        ("*=guided", ["Guided()"]),
        ("0=gamma=0.5,bias=plain", ["Gamma(gamma=0.5, bias='plain', epsilon=1e-06)"]),
        ("*=lrp-0", ["Adjoint()", "PassThrough()"]),
    ],
)
def test_a_layer_rule_goes_where_it_is_defined(layer: str, rules: list[str]) -> None:
    composite = named("z+").with_entries(layer_entry(layer))
    compiled = relcompile.compile(small_network(), torch.randn(1, 3, 16, 16), rule=composite)
    assert set(rules) <= {record.rule for record in compiled.metadata.layers}


@pytest.mark.parametrize("rule", ["epsilon=0.25", "z+,bias=split", "gradient*input"])
def test_the_rule_is_stored_as_it_was_asked_for(rule: str) -> None:
    assert relcompile.compile(small_network(), torch.randn(1, 3, 16, 16), rule=rule).metadata.rule == rule


def test_an_entry_of_a_layer_that_does_not_exist() -> None:
    mistyped = named("epsilon").with_entries(Entry(Flat(), name="fetures.*"))
    with pytest.raises(CompositeError, match="no layer matches name='fetures"):
        relcompile.compile(small_network(), torch.randn(1, 3, 16, 16), rule=mistyped)


def test_every_preprocessing_option_counts(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option, value, kept in (
        ("--channels", "BGR", "channels=BGR"),
        ("--scale", "1", "scale=1.0"),
        ("--interpolation", "bicubic", "interpolation=bicubic"),
        ("--std", "0.5,0.5,0.25", "std=(0.5, 0.5, 0.25)"),
    ):
        units = {"--mean": "0,0,0", "--std": "1,1,1", option: value}
        arguments = (*sum(units.items(), ()), "--input", "1x3x16x16", "-o", tmp_path / "x.onnx")
        assert run(model, *arguments, capsys=capsys)[0] == 0
        assert kept in " ".join(run("inspect", tmp_path / "x.onnx", capsys=capsys)[1].replace("│", "").split())


def test_an_error_of_its_own_is_reported_as_one(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:

    def broken(*_: object, **__: object) -> None:
        raise KeyError("gone")

    from relcompile.cli.commands import compile as compile_command

    monkeypatch.setattr(compile_command, "compile_file", broken)
    code, _, err = run(model, capsys=capsys)
    assert code == 1
    assert "KeyError: 'gone'" in err
    assert "Traceback" not in err
    monkeypatch.setenv("RELCOMPILE_TRACEBACK", "1")
    with pytest.raises(KeyError):
        run(model, capsys=capsys)


class Difference(nn.Module):
    """Its inputs have an order that does not matter if they are given by name."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(3, 2)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return self.dense(left) - right


def test_inputs_are_given_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(Difference().state_dict(), tmp_path / "m.pt")
    inputs = ("--input", "right=1x2", "--input", "left=1x3", "--explain", "left", "--explain", "left")
    arguments = ("--arch", f"{__name__}:Difference", "--rule", "epsilon", "-o", tmp_path / "x.onnx")
    code, _, err = run(tmp_path / "m.pt", *arguments, *inputs, capsys=capsys)
    assert code == 0, err


def test_unsupported_operators_are_all_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(Factorial().state_dict(), tmp_path / "factorial.pt")
    arch = f"{__name__}:Factorial"
    code, _, err = run(tmp_path / "factorial.pt", "--arch", arch, "--input", "1x4", capsys=capsys)
    assert code == 2
    assert "lgamma" in err
    assert "test_cli.py" in err
    assert files(tmp_path) == {"factorial.pt"}


def test_full_disk_leaves_nothing(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(onnx, "save_model", full)
    code, _, err = run(model, "--input", "1x3x16x16", capsys=capsys)
    assert code == 2
    assert "No space left" in err
    assert files(tmp_path) == {"model.pt"}


def test_console_script_exits_with_2() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "relcompile", "nothing.pt"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.count("error:") == 1


GUESSES: dict[str, tuple[nn.Module, str | None]] = {
    "photographs": (small_network(), "1x3x224x224"),
    "vectors": (nn.Sequential(nn.ReLU(), nn.Linear(7, 2)), "1x7"),
    "no layer with weights": (nn.ReLU(), None),
}


@pytest.mark.parametrize("name", GUESSES)
def test_the_shape_of_the_input_is_guessed(name: str) -> None:
    network, spec = GUESSES[name]
    if spec is not None:
        assert default_specs(network) == (spec,)
        return
    with pytest.raises(InputSpecError, match="cannot be guessed"):
        default_specs(network)


@pytest.mark.parametrize("channels", [10**6, -3, 0, "3x9", 2.5, None])
def test_a_guess_is_no_size_that_the_file_makes_up(channels: Any) -> None:
    network = nn.Conv2d(3, 2, 1)
    vars(network)["in_channels"] = channels
    with pytest.raises(InputSpecError, match="cannot be guessed"):
        default_specs(network)
    del network.in_channels
    with pytest.raises(InputSpecError, match="cannot be guessed"):
        default_specs(network)
