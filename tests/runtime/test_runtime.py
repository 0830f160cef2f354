"""The production runtime, on explainers of a linear model `output = x @ W`, made with the onnx helpers."""

import dataclasses
import logging
import pickle
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import helper, numpy_helper

from relcompile.errors import ExplainerFileError, InputSpecError, RuntimeUnavailableError, TargetError
from relcompile.files.records import InputRecord, LayerRecord, TargetRecord
from relcompile.metadata import Metadata
from relcompile.runtime.options import Device, GpuOptions
from relcompile.runtime.production import load

W = np.array([[1.0, 2.0, -1.0, 0.5], [0.0, -3.0, 1.0, 1.0], [2.0, 1.0, 0.0, -1.0]], np.float32)  # (3, 4)
X = np.array([[1.0, 2.0, 3.0], [-1.0, 0.5, 2.0]], np.float32)  # its best classes are 0 and 0
MODES = ("index", "argmax", "fixed", "seed")
TARGETS = {mode: TargetRecord(mode, 2 if mode == "fixed" else None, 4) for mode in MODES}
MULTIPLIER = {
    "index": "multiplier = Gather <axis=0> (WT, target)",
    "argmax": "best = ArgMax <axis=1, keepdims=0> (output)  multiplier = Gather <axis=0> (WT, best)",
    "fixed": "two = Constant <value_int=2> ()  multiplier = Gather <axis=0> (WT, two)",
    "seed": "multiplier = MatMul (seed, WT)",
}
HEADER = '<ir_version: 10, opset_import: ["": 20]>'


def describe(mode: str = "index", **changes: object) -> Metadata:
    metadata = Metadata(
        relcompile="0.1.0",
        torch="2.14.1",
        rule="gradient",
        layers=(LayerRecord("fc", "linear", "affine", "gradient", 12),),
        target=TARGETS[mode],
        inputs=(InputRecord("input", ("batch", 3), "float32"),),
        outputs=("output",),
        explained="output",
        relevance=("relevance",),
        absorbed=False,
        weights_sha256="0" * 64,
    )
    return dataclasses.replace(metadata, **changes)


def save(path: Path, model: onnx.ModelProto, metadata: str) -> Path:
    if metadata:
        helper.set_model_props(model, {"relcompile": metadata})
    onnx.save(model, path)
    return path


def write(path: Path, mode: str = "index", text: str | None = None, absorbed: bool = False) -> Path:
    """The explainer: relevance = x * W[:, target], or x * (seed @ W.T)."""
    entry = {"index": ", int64[batch] target", "seed": ", float[batch, 4] seed"}.get(mode, "")
    model = onnx.parser.parse_model(f"""{HEADER}
        explainer (float[batch, 3] input{entry})
            => (float[batch, 4] output, float[batch, 3] relevance{", float[batch, 1] absorbed" * absorbed})
        {{
            output = MatMul (input, W)
            {MULTIPLIER[mode]}
            relevance = Mul (input, multiplier)
            {"absorbed = MatMul (input, ones)" * absorbed}
        }}""")
    constants = {"W": W, "WT": np.ascontiguousarray(W.T), "ones": np.ones((3, 1), np.float32)}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    return save(path, model, describe(mode, absorbed=absorbed).to_json() if text is None else text)


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    return write(tmp_path / "linear.onnx")


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("mode", TARGETS)
def test_every_target_mode_explains_as_numpy_does(tmp_path: Path, mode: str, batch: int) -> None:
    x = X[:batch]
    seed = np.array([[0.0, 1.0, 0.0, -2.0], [3.0, 0.0, 0.0, 1.0]], np.float32)[:batch]
    given, classes = {
        "index": ([3, 1][:batch], [3, 1][:batch]),
        "argmax": (None, (x @ W).argmax(1)),
        "fixed": (None, [2] * batch),
        "seed": (seed, None),
    }[mode]
    multiplier = seed @ W.T if classes is None else W.T[classes]

    explanation = load(write(tmp_path / "e.onnx", mode), device="cpu").explain(x, target=given)

    np.testing.assert_allclose(explanation.relevance, x * multiplier, rtol=1e-6)
    np.testing.assert_allclose(explanation.output, x @ W, rtol=1e-6)
    np.testing.assert_array_equal(explanation.target, seed if classes is None else classes)
    assert explanation.outputs["output"] is explanation.output
    assert explanation.relevances == {"relevance": explanation.relevance}
    assert explanation.absorbed is None


@pytest.mark.parametrize("target", [3, np.int32(3), np.array(3), [3, 3], (3, 3), np.array([3, 3], np.uint8)], ids=repr)
def test_one_class_serves_all_rows_and_integers_of_all_widths_are_classes(linear: Path, target: int) -> None:
    explanation = load(linear, device="cpu").explain(X, target=target)
    np.testing.assert_allclose(explanation.relevance, X * W[:, 3], rtol=1e-6)
    assert explanation.target is not None
    assert (explanation.target.dtype, explanation.target.tolist()) == (np.int64, [3, 3])


@pytest.mark.parametrize(
    ("mode", "target", "message"),
    [
        ("index", None, r"needs target=.*--target argmax"),
        ("index", 4, r"target 4 does not exist.*0 to 3"),
        ("index", [0, -1], r"target -1 does not exist.*0 to 3"),
        ("index", np.array([2**63, 0], np.uint64), r"target 9223372036854775808 does not exist"),
        ("index", [1], r"shape \(1,\).*each of the 2 rows"),
        ("index", [[1, 2]], r"shape \(1, 2\)"),
        ("index", 1.0, r"dtype float64"),
        ("index", True, r"dtype bool"),
        ("index", [[1], [1, 2]], r"is not one class"),
        ("argmax", 1, r"target=1 was given.*always explains the best class"),
        ("fixed", 2, r"target=2 was given.*always explains class 2"),
        ("seed", None, r"needs target"),
        ("seed", 1, r"seed: input seed wants float32.*int was given"),
        ("seed", np.ones((2, 3), np.float32), r"seed:.*\(2, 3\).*axis 1 is not 4"),
        ("seed", np.ones((1, 4), np.float32), r"seed:.*\(1, 4\).*axis 0 is not 2"),
        ("seed", np.ones((2, 4), np.int64), r"seed:.*int64 was given"),
    ],
)
def test_a_target_that_does_not_fit_is_refused(tmp_path: Path, mode: str, target: Any, message: str) -> None:
    explainer = load(write(tmp_path / "e.onnx", mode), device="cpu")
    with pytest.raises(TargetError, match=message):
        explainer.explain(X, target=target)


def test_an_output_without_classes_needs_no_target_and_has_no_other(tmp_path: Path) -> None:
    explainer = load(write(tmp_path / "e.onnx", text=describe(target=TargetRecord("index")).to_json()), device="cpu")
    for target in (None, 0):
        np.testing.assert_allclose(explainer.explain(X, target=target).relevance, X * W[:, 0], rtol=1e-6)
    with pytest.raises(TargetError, match="target 12345 does not exist: the output has no classes"):
        explainer.explain(X, target=12345)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], r"0 inputs were given, but the file takes 1: input \['batch', 3\]"),
        ([X, X], r"2 inputs were given"),
        ([X.tolist()], r"a list was given"),
        ([np.ma.masked_array(X, X > 2)], r"a MaskedArray was given"),
        ([X[0]], r"wants float32 \['batch', 3\], but the shape \(3,\)"),
        ([X[:, :2]], r"\(2, 2\) was given; axis 1 is not 3"),
        ([X[:0]], r"empty array of shape \(0, 3\)"),
        ([X.astype(np.float64)], r"float64 was given; convert it with .astype\('float32'\)"),
        ([X.astype(np.uint8)], r"uint8 was given"),
        ([X.astype(np.complex64)], r"complex64 was given"),
    ],
)
def test_an_input_that_does_not_fit_is_refused(linear: Path, inputs: Sequence, message: str) -> None:
    explainer = load(linear, device="cpu")
    with pytest.raises(InputSpecError, match=message):
        explainer.explain(*inputs, target=0)


@pytest.mark.parametrize(
    "same", [X.astype(np.float16), X.astype(">f4"), np.asfortranarray(X), np.repeat(X, 2, axis=0)[::2]]
)
def test_arrays_of_equal_value_explain_equally(linear: Path, same: np.ndarray) -> None:
    explanation = load(linear, device="cpu").explain(same, target=1)
    np.testing.assert_allclose(explanation.relevance, X * W[:, 1], rtol=1e-6)
    assert explanation.relevance.dtype == np.float32


def test_absorbed_relevance_is_handed_on(tmp_path: Path) -> None:
    explanation = load(write(tmp_path / "e.onnx", absorbed=True), device="cpu").explain(X, target=0)
    np.testing.assert_allclose(np.asarray(explanation.absorbed), X.sum(1, keepdims=True))


def test_several_inputs_share_their_symbols_and_have_their_own_relevance(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(f"""{HEADER}
        two (float[batch, n] image, int64[batch, n] count)
            => (float[batch, n] output, float[batch, n] relevance_image, float[batch, n] relevance_count)
        {{
            relevance_count = Cast <to=1> (count)
            output = Mul (image, relevance_count)
            relevance_image = Neg (image)
        }}""")
    shape = ("batch", "n")
    inputs = (InputRecord("image", shape, "float32"), InputRecord("count", shape, "int64"))
    metadata = describe("argmax", inputs=inputs, relevance=("relevance_image", "relevance_count"))
    save(tmp_path / "two.onnx", model, metadata.to_json())
    explainer = load(tmp_path / "two.onnx", device="cpu")

    explanation = explainer.explain(X, np.full((2, 3), 7, np.uint8))

    np.testing.assert_array_equal(explanation.relevance, -X)
    np.testing.assert_array_equal(explanation.relevances["relevance_count"], np.full((2, 3), 7.0))
    np.testing.assert_allclose(explanation.output, 7 * X)
    with pytest.raises(InputSpecError, match=r"input count .*\(2, 2\) was given; axis 1 is not 3"):
        explainer.explain(X, np.ones((2, 2), np.int64))


def make_file(kind: str, path: Path) -> None:
    later = describe().to_json().replace('"format": 1', '"format": 2')
    ghost = describe(relevance=("ghost",)).to_json()
    match kind:
        case "missing":
            return
        case "folder":
            path.mkdir()
        case "text":
            path.write_text("no model at all")
        case "empty":
            path.write_bytes(b"")
        case "truncated":
            path.write_bytes(write(path).read_bytes()[:-200])
        case "no metadata":
            write(path, text="")
        case "later format":
            write(path, text=later)
        case "absent output":
            write(path, text=ghost)
        case "metadata that are not UTF-8":
            path.write_bytes(write(path).read_bytes().replace(b'"weights_sha256"', b'"weights_sha25\xff"'))
        case "a name that is not UTF-8":
            path.write_bytes(write(path).read_bytes().replace(b"relevance", b"relevanc\xff"))
        case "no target input":
            write(path, "argmax", text=describe("index").to_json())


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "there is no such file"),
        ("folder", "it is a folder, not a regular file"),
        ("text", "cannot load"),
        ("empty", "is not an explainer: it is empty"),
        ("truncated", "cannot load"),
        ("no metadata", "relcompile did not write it; compile it: relcompile "),
        ("later format", "format version 2"),
        ("absent output", "lacks ['ghost']"),
        ("metadata that are not UTF-8", "codec can't decode"),
        ("a name that is not UTF-8", "codec can't decode|cannot load"),
        ("no target input", 'for target mode "index"'),
    ],
)
def test_a_file_that_is_no_explainer_is_refused_by_name_and_quietly(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str, message: str
) -> None:
    path = tmp_path / "model.onnx"
    make_file(kind, path)
    with pytest.raises(ExplainerFileError) as caught:
        load(path, device="cpu")
    assert any(part in str(caught.value) for part in message.split("|"))
    assert str(path) in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_run_that_fails_is_reported_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    too_many = describe(target=TargetRecord("index", None, 10)).to_json()
    explainer = load(write(tmp_path / "e.onnx", text=too_many), device="cpu")
    with pytest.raises(RuntimeUnavailableError, match="ONNX Runtime failed on CPUExecutionProvider"):
        explainer.explain(X, target=9)
    assert capfd.readouterr() == ("", "")


def test_a_row_that_is_not_finite_is_told_apart(linear: Path) -> None:
    x = np.array([[np.nan, 0, 0], [1, 2, 3], [np.inf, 0, 0], [3e38, 3e38, 3e38]], np.float32)
    explanation = load(linear, device="cpu").explain(x, target=1)
    assert explanation.finite.tolist() == [False, True, False, False]  # the last input is, its relevance is not
    np.testing.assert_allclose(explanation.relevance[1], x[1] * W[:, 1], rtol=1e-6)


class FakeOnnxRuntime(ModuleType):
    """An ONNX Runtime whose CUDA is as broken as the test wants; it remembers what it was asked."""

    def __init__(self, available: bool, cuda: str) -> None:
        super().__init__("onnxruntime")
        self.__version__ = "1.31.1"
        self.cuda = cuda
        built_in = ["TensorrtExecutionProvider", "CUDAExecutionProvider"] * available + ["CPUExecutionProvider"]
        self.get_available_providers = lambda: built_in
        self.options: dict[str, str] = {}
        self.run_options: dict[str, str] = {}
        self.fallback: set[int] = set()
        self.preloads = 0
        self.asked: list[tuple[str, dict[str, str]]] = []

    def preload_dlls(self) -> None:
        self.preloads += 1
        print("no libcudart")  # noqa: T201 - ONNX Runtime does

    def SessionOptions(self) -> SimpleNamespace:  # noqa: N802 - the name of ONNX Runtime
        return SimpleNamespace(add_session_config_entry=self.options.__setitem__)

    def RunOptions(self) -> SimpleNamespace:  # noqa: N802 - the name of ONNX Runtime
        return SimpleNamespace(add_run_config_entry=self.run_options.__setitem__)

    def InferenceSession(  # noqa: N802 - the name of ONNX Runtime
        self, path: str, options: SimpleNamespace, providers: list[Any], enable_fallback: int
    ) -> SimpleNamespace:
        self.fallback.add(enable_fallback)
        self.threads = options.intra_op_num_threads
        named = [provider if isinstance(provider, str) else provider[0] for provider in providers]
        self.asked = [provider for provider in providers if isinstance(provider, tuple)] or self.asked
        if (len(named) > 1 and self.cuda == "raises") or self.cuda == "bad file":
            raise RuntimeError("CUDA failure 100")
        used = named if self.cuda == "works" else ["CPUExecutionProvider"]
        return SimpleNamespace(
            get_providers=lambda: used,
            get_inputs=lambda: [SimpleNamespace(name="input"), SimpleNamespace(name="target")],
            get_outputs=lambda: [SimpleNamespace(name="output"), SimpleNamespace(name="relevance")],
            get_modelmeta=lambda: SimpleNamespace(custom_metadata_map={"relcompile": describe().to_json()}),
        )


@pytest.mark.parametrize(
    "case",  # device, CUDA built in, what CUDA does, where it ends, what is said
    [
        ("cuda", True, "works", "CUDAExecutionProvider", None),
        ("auto", True, "works", "CUDAExecutionProvider", None),
        ("cpu", True, "works", "CPUExecutionProvider", None),
        ("auto", False, "absent", "CPUExecutionProvider", None),
        ("auto", True, "silent", "CPUExecutionProvider", "did not start: no libcudart"),
        ("auto", True, "raises", "CPUExecutionProvider", "CUDA failure 100"),
        ("tensorrt", True, "works", "TensorrtExecutionProvider", None),
        ("tensorrt", False, "absent", RuntimeUnavailableError, "built without TensorRT"),
        ("tensorrt", True, "silent", RuntimeUnavailableError, "TensorRT did not start: no libcudart"),
        ("cuda", False, "absent", RuntimeUnavailableError, "relcompile[gpu]"),
        ("cuda", True, "silent", RuntimeUnavailableError, "did not start: no libcudart"),
        ("cuda", True, "raises", RuntimeUnavailableError, "CUDA failure 100"),
        ("cuda", True, "bad file", ExplainerFileError, "cannot load"),
    ],
)
def test_only_the_providers_of_the_session_are_believed(
    linear: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    case: tuple,
) -> None:
    device, available, cuda, ends_on, says = case
    fake = FakeOnnxRuntime(available, cuda)
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    caplog.set_level(logging.INFO, "relcompile.runtime")
    if isinstance(ends_on, str):
        assert load(linear, device=device).providers[0] == ends_on
        assert [says in message for message in caplog.messages] == ([] if says is None else [True])
    else:
        with pytest.raises(ends_on) as caught:
            load(linear, device=device)
        assert str(says) in str(caught.value)
        assert not caplog.messages
    assert fake.preloads == (available and device != "cpu")
    assert fake.fallback == {0}
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(("spinning", "threads", "expected"), [(False, None, ("0", 0)), (True, 3, ("1", 3))])
def test_spinning_is_off_unless_asked_for(
    linear: Path,
    monkeypatch: pytest.MonkeyPatch,
    spinning: bool,
    threads: int | None,
    expected: tuple[str, int],
) -> None:
    fake = FakeOnnxRuntime(False, "absent")
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    load(linear, threads=threads, spinning=spinning)
    assert set(fake.options.values()) == {expected[0]}
    assert {"session.intra_op.allow_spinning", "session.inter_op.allow_spinning"} == set(fake.options)
    assert fake.threads == expected[1]


@pytest.mark.parametrize(
    ("module", "message"), [(None, "cannot be imported"), (ModuleType("onnxruntime"), "in part only")]
)
def test_a_missing_or_broken_onnxruntime_names_both_extras(
    linear: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType | None, message: str
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    with pytest.raises(RuntimeUnavailableError, match=message) as caught:
        load(linear)
    assert "pip install 'relcompile[serve-cpu]'" in str(caught.value)
    assert "'relcompile[gpu]'" in str(caught.value)


NUMBER = {"device_id": "0"}
OPTIONS: dict[str, tuple[Device, GpuOptions | None, list[tuple[str, dict[str, str]]]]] = {
    "nothing": ("cuda", None, [("CUDAExecutionProvider", NUMBER)]),
    "all of CUDA": (
        "auto",
        GpuOptions(number=2, memory=2**30, cuda_graph=True),
        [("CUDAExecutionProvider", {"device_id": "2", "gpu_mem_limit": "1073741824", "enable_cuda_graph": "1"})],
    ),
    "TensorRT": (
        "tensorrt",
        GpuOptions(engine_cache="engines"),
        [
            (
                "TensorrtExecutionProvider",
                NUMBER
                | {"trt_engine_cache_enable": "1", "trt_engine_cache_path": "engines", "trt_cuda_graph_enable": "0"},
            ),
            ("CUDAExecutionProvider", NUMBER),
        ],
    ),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_options_of_gpus_reach_onnx_runtime(linear: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    (device, gpu, asked), fake = OPTIONS[case], FakeOnnxRuntime(True, "works")
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    load(linear, device=device, gpu=gpu)
    assert fake.asked == asked
    assert fake.run_options == ({"gpu_graph_id": "-1"} if gpu and gpu.cuda_graph else {})  # no run is recorded unasked


@pytest.mark.parametrize(
    "wrong", [{"number": -1}, {"memory": 0}, {"memory": 1e9}, {"cuda_graph": 1}, {"engine_cache": 3}], ids=repr
)
def test_options_of_gpus_that_make_no_sense_are_refused(wrong: dict) -> None:
    with pytest.raises(InputSpecError, match=f"gpu.{next(iter(wrong))}=.*want"):
        GpuOptions(**wrong)


def test_engines_are_kept_for_tensorrt_alone(linear: Path) -> None:
    with pytest.raises(InputSpecError, match='add device="tensorrt"'):
        load(linear, gpu=GpuOptions(engine_cache="engines"))


def test_threads_may_share_an_explainer(linear: Path) -> None:
    explainer = load(linear, device="cpu", threads=1)
    rows = [(np.full((1, 3), n, np.float32), n % 4) for n in range(40)]
    with ThreadPoolExecutor(8) as pool:
        explanations = list(pool.map(lambda row: explainer.explain(row[0], target=row[1]), rows))
    for (x, target), explanation in zip(rows, explanations, strict=True):
        np.testing.assert_allclose(explanation.relevance, x * W[:, target], rtol=1e-6)


def test_the_runtime_explains_where_torch_and_onnx_cannot_be_imported(linear: Path) -> None:
    program = """
import sys
sys.modules["torch"] = sys.modules["onnx"] = None
try:
    import torch
except ImportError:
    print("torch is blocked")
import numpy as np
from relcompile.runtime.options import Device, GpuOptions
from relcompile.runtime.production import load
print(load(sys.argv[1], device="cpu").explain(np.ones((1, 3), np.float32), target=1).relevance.tolist())
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(linear)],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["torch is blocked", str([W[:, 1].tolist()])]


def test_the_content_of_a_file_is_as_good_as_the_file(linear: Path) -> None:
    content = linear.read_bytes()
    linear.unlink()
    explainer = load(content, device="cpu", threads=1)
    for each in (explainer, pickle.loads(pickle.dumps(explainer))):
        np.testing.assert_allclose(each.explain(X, target=3).relevance, X * W[:, 3], rtol=1e-6)
    for damaged, told in ((content[:-200], "the explainer"), (b"", "the explainer"), (b"no model", "the explainer")):
        with pytest.raises(ExplainerFileError, match=told) as caught:
            load(damaged, device="cpu")
        assert "/" not in str(caught.value).partition(":")[0]
