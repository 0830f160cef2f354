"""The affine oracles against independent facts: numbers worked by hand, identities between rules.

The tests beside this one do the same for whole networks, DeepLIFT and patterns.
"""

from __future__ import annotations

import ast
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.compare import FLOAT64, assert_close, assert_conserved
from tests.oracles import affine

ORACLES = sorted(path for path in Path(__file__).parent.glob("*.py") if path != Path(__file__))


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("path", ORACLES, ids=lambda path: path.name)
def test_oracles_import_nothing_under_test(path: Path) -> None:
    allowed = {
        "__future__",
        "collections",
        "contextlib",
        "dataclasses",
        "functools",
        "pytest",
        "tests",
        "torch",
        "transformers",
        "types",
        "typing",
        "unittest",
        "zennit",
    }
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            imported.add(node.module or "relative import")
        if isinstance(node, ast.Name):
            assert node.id not in {"__import__", "importlib"}
    assert {name.split(".")[0] for name in imported} <= allowed
    own = {name for name in imported if name.split(".")[0] == "tests"}
    assert all(name == "tests.compare" or name.startswith("tests.oracles") for name in own)


def test_there_are_oracles() -> None:
    assert {path.stem for path in ORACLES} >= {"affine", "local", "network", "deeplift", "estimators", "nets"}


# matrix_of

FUNCTIONS = {
    "linear": (partial(functional.linear, weight=randn(4, 5, seed=1), bias=randn(4, seed=2)), (5,)),
    "linear on the last axis": (partial(functional.linear, weight=randn(2, 3, seed=1)), (4, 3)),
    "conv1d": (partial(functional.conv1d, weight=randn(2, 3, 3, seed=1), padding=2, dilation=2), (3, 6)),
    "conv2d strided": (
        partial(functional.conv2d, weight=randn(3, 2, 3, 3, seed=3), bias=randn(3, seed=4), stride=2, padding=1),
        (2, 5, 6),
    ),
    "conv2d grouped": (
        partial(functional.conv2d, weight=randn(4, 1, 2, 2, seed=5), bias=randn(4, seed=6), dilation=2, groups=2),
        (2, 5, 5),
    ),
    "conv_transpose2d": (
        partial(functional.conv_transpose2d, weight=randn(2, 3, 3, 3, seed=7), bias=randn(3, seed=8), stride=2),
        (2, 3, 3),
    ),
    "average pool": (partial(functional.avg_pool2d, kernel_size=3, stride=2, padding=1), (2, 5, 5)),
    "size one": (partial(functional.linear, weight=randn(1, 1, seed=9)), (1,)),
}


@pytest.mark.parametrize(("function", "shape"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_matrix_is_the_function_and_its_gradient(function, shape: tuple[int, ...]) -> None:
    W, b = affine.matrix_of(function, shape)
    x = randn(3, *shape, seed=10).requires_grad_()
    y = function(x)
    assert_close(x.flatten(1) @ W.T + b, y.flatten(1), FLOAT64)
    R = randn(*y.shape, seed=11)
    (gradient,) = torch.autograd.grad(y, x, R)
    assert_close(affine.gradient(x.flatten(1), W, b, R.flatten(1)), gradient.flatten(1), FLOAT64)


def test_matrix_refuses_what_is_not_affine() -> None:
    with pytest.raises(ValueError, match="not affine"):
        affine.matrix_of(functional.relu, (3,))
    with pytest.raises(ValueError, match="not affine"):
        affine.matrix_of(lambda x: x + x.sum(0), (3,))
    with pytest.raises(ValueError, match="not in float64"):
        affine.matrix_of(lambda x: x.float(), (3,))


# Worked by hand: x = (1, 2), w = (3, -1), b = 1/2, R = 1, so z = 3 - 2 + 1/2.

BY_HAND = {
    "lrp_0 none": (affine.lrp_0, {"bias": "none"}, (3.0, -2.0)),
    "lrp_0 full": (affine.lrp_0, {"bias": "full"}, (2.0, -4 / 3)),
    "epsilon none": (affine.epsilon, {"bias": "none", "eps": 0.5}, (2.0, -4 / 3)),
    "epsilon full": (affine.epsilon, {"bias": "full", "eps": 0.5}, (1.5, -1.0)),
    "z_plus none": (affine.z_plus, {"bias": "none", "eps": 0.0}, (1.0, 0.0)),
    "z_plus positive": (affine.z_plus, {"bias": "positive", "eps": 0.5}, (0.75, 0.0)),
    "z_plus full": (affine.z_plus, {"bias": "full", "eps": 0.0}, (6 / 7, 0.0)),
    "a2b1 none": (affine.alpha_beta, {"alpha": 2.0, "beta": 1.0, "bias": "none", "eps": 0.0}, (2.0, -1.0)),
    "a2b1 eps": (affine.alpha_beta, {"alpha": 2.0, "beta": 1.0, "bias": "none", "eps": 1.0}, (1.5, -2 / 3)),
    "a2b1 split": (
        affine.alpha_beta,
        {"alpha": 2.0, "beta": 1.0, "bias": "split", "eps": 0.0},
        (12 / 7, -1.0),
    ),
    "a2b1 full": (
        affine.alpha_beta,
        {"alpha": 2.0, "beta": 1.0, "bias": "full", "eps": 0.0},
        (12 / 7, -4 / 3),
    ),
    "gamma none": (affine.gamma, {"g": 1.0, "bias": "none", "eps": 0.0}, (1.5, -0.5)),
    "gamma plain": (affine.gamma, {"g": 1.0, "bias": "plain", "eps": 0.0}, (4 / 3, -4 / 9)),
    "gamma scaled": (affine.gamma, {"g": 1.0, "bias": "scaled", "eps": 0.0}, (1.2, -0.4)),
    "gamma general": (affine.gamma_generalised, {"g": 1.0, "bias": "scaled", "eps": 0.0}, (1.2, -0.4)),
    "w_squared none": (affine.w_squared, {"bias": "none", "eps": 0.0}, (0.9, 0.1)),
    "w_squared squared": (affine.w_squared, {"bias": "squared", "eps": 0.0}, (9 / 10.25, 1 / 10.25)),
    "flat": (affine.flat, {"support": None, "eps": 0.0}, (0.5, 0.5)),
    "flat wired": (affine.flat, {"support": torch.tensor([[1.0, 0.0]]).double(), "eps": 0.0}, (1.0, 0.0)),
    "z_box": (affine.z_box, {"low": -1.0, "high": 3.0, "eps": 0.0}, (6 / 7, 1 / 7)),
    "excitation": (affine.excitation_backprop, {"eps": 0.0}, (1.0, 0.0)),
    "pattern_net": (affine.pattern_net, {"A": torch.tensor([[0.5, 0.25]]).double()}, (0.5, 0.25)),
    "pattern_attribution": (
        affine.pattern_attribution,
        {"A": torch.tensor([[0.5, 0.25]]).double()},
        (1.5, -0.25),
    ),
    "root_direction": (
        affine.root_direction,
        {"v": torch.tensor([[[1.0, 1.0]]]).double(), "eps": 0.0},
        (1.5, -0.5),
    ),
}


@pytest.mark.parametrize(("rule", "settings", "expected"), BY_HAND.values(), ids=BY_HAND)
def test_by_hand(rule, settings: dict, expected: tuple[float, float]) -> None:
    x, W, b, R = (torch.tensor(v, dtype=torch.float64) for v in ([[1.0, 2.0]], [[3.0, -1.0]], [0.5], [[1.0]]))
    assert_close(rule(x, W, b, R, **settings), torch.tensor([expected], dtype=torch.float64), FLOAT64)


def test_gamma_generalised_below_zero_by_hand() -> None:
    x, W, b, R = (torch.tensor(v, dtype=torch.float64) for v in ([[1.0, 2.0]], [[3.0, -2.0]], [-1.0], [[1.0]]))
    got = affine.gamma_generalised(x, W, b, R, g=1.0, bias="scaled", eps=0.0)  # z = 3 - 4 - 1; 3 - 8 - 2 = -7
    assert_close(got, torch.tensor([[-3 / 7, 8 / 7]], dtype=torch.float64), FLOAT64)


def test_stabiliser_sign_of_zero_is_plus() -> None:
    z = torch.tensor([-1.0, -0.0, 0.0, 1.0], dtype=torch.float64)
    assert affine.stabilise(z, 0.5).tolist() == [-1.5, 0.5, 0.5, 1.5]
    assert affine.divide(z, torch.zeros(4, dtype=torch.float64)).tolist() == [0.0] * 4


@pytest.mark.parametrize("rule", [affine.epsilon, affine.z_plus, affine.w_squared])
def test_unknown_bias_convention(rule) -> None:
    with pytest.raises(ValueError, match="'half' is not one of"):
        rule(X, W, b, R, bias="half", eps=0.0)


# Identities between rules, on signed x and on x >= 0 with zeros.

X, W, b, R = randn(4, 6, seed=20), randn(5, 6, seed=21), randn(5, seed=22), randn(4, 5, seed=23)
RELU_X = X.clamp(min=0)
LOW, HIGH = X.min(0).values, X.max(0).values
RULES = {
    "lrp_0": partial(affine.lrp_0, bias="none"),
    "z_plus": partial(affine.z_plus, bias="none", eps=0.0),
    "a2b1": partial(affine.alpha_beta, alpha=2.0, beta=1.0, bias="none", eps=0.0),
    "a5b4": partial(affine.alpha_beta, alpha=5.0, beta=4.0, bias="none", eps=0.0),
    "gamma": partial(affine.gamma, g=0.25, bias="none", eps=0.0),
    "gamma_generalised": partial(affine.gamma_generalised, g=0.25, bias="none", eps=0.0),
    "w_squared": partial(affine.w_squared, bias="none", eps=0.0),
    "flat": partial(affine.flat, support=None, eps=0.0),
    "z_box": partial(affine.z_box, low=LOW, high=HIGH, eps=0.0),
    "excitation": partial(affine.excitation_backprop, eps=0.0),
    "root_direction": partial(affine.root_direction, v=randn(1, 5, 6, seed=24), eps=0.0),
}
a1b0 = partial(affine.alpha_beta, alpha=1.0, beta=0.0, eps=0.1)
z_plus, epsilon = partial(affine.z_plus, eps=0.1), partial(affine.epsilon, eps=0.1)
gamma_0 = partial(affine.gamma, g=0.0, bias="scaled", eps=0.1)
gamma_general_0 = partial(affine.gamma_generalised, g=0.0, bias="scaled", eps=0.1)
box, root = partial(affine.z_box, eps=0.1), partial(affine.root_direction, eps=0.1)
ON, OFF = (W > 0).double(), (W < 0).double()
IDENTITIES = {
    "a1b0 none = z+": (X, partial(a1b0, bias="none"), partial(z_plus, bias="none")),
    "a1b0 split = z+ positive": (X, partial(a1b0, bias="split"), partial(z_plus, bias="positive")),
    "a1b0 full = z+ full": (X, partial(a1b0, bias="full"), partial(z_plus, bias="full")),
    "gamma 0 = epsilon": (X, gamma_0, partial(epsilon, bias="full")),
    "general gamma 0 = epsilon": (X, gamma_general_0, partial(epsilon, bias="full")),
    "gamma infinite = z+": (X.abs(), partial(affine.gamma, g=1e13, bias="none", eps=0.0), RULES["z_plus"]),
    "excitation = z+": (RELU_X, RULES["excitation"], RULES["z_plus"]),
    "box [0, 0] = epsilon": (X, partial(box, low=0.0, high=0.0), partial(epsilon, bias="none")),
    "box [0, x] = z+": (RELU_X, partial(box, low=0.0, high=RELU_X), partial(z_plus, bias="none")),
    "box [0, infinite] = w-": (X, partial(box, low=0.0, high=1e13), partial(root, v=-1e13 * OFF[None])),
    "box infinite = |w|": (X, partial(box, low=-1e13, high=1e13), partial(root, v=1e13 * W.sign()[None])),
    "v = x: epsilon": (X, partial(root, v=X[:, None]), partial(epsilon, bias="none")),
    "v = w: w2": (X, partial(root, v=W[None]), partial(affine.w_squared, bias="none", eps=0.1)),
    "v = x [w > 0]: z+": (RELU_X, partial(root, v=RELU_X[:, None] * ON), partial(z_plus, bias="none")),
    "v = x [w > 0], signed: excitation": (
        X,
        partial(root, v=X[:, None] * ON),
        partial(affine.excitation_backprop, eps=0.1),
    ),
    "v = x - l [w > 0] - h [w < 0]: zB": (
        X,
        partial(root, v=X[:, None] - LOW * ON - HIGH * OFF),
        partial(box, low=LOW, high=HIGH),
    ),
    "pattern w = gradient": (X, partial(affine.pattern_net, A=W), affine.gradient),
    "pattern w / w^2 = w2": (
        X,
        partial(affine.pattern_attribution, A=W / (W * W).sum(1, keepdim=True)),
        RULES["w_squared"],
    ),
}


@pytest.mark.parametrize(("x", "rule", "other"), IDENTITIES.values(), ids=IDENTITIES)
def test_identity(x: Tensor, rule, other) -> None:
    assert_close(rule(x, W, b, R), other(x, W, b, R), FLOAT64)


def test_gamma_generalised_is_gamma_where_everything_is_positive() -> None:
    x = RELU_X
    above = R * (x @ W.T + b > 0)
    got = affine.gamma_generalised(x, W, b, above, g=0.25, bias="scaled", eps=0.1)
    assert_close(got, affine.gamma(x, W, b, above, g=0.25, bias="scaled", eps=0.1), FLOAT64)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_without_bias_relevance_is_conserved(rule) -> None:
    assert_conserved(rule(X, W, b, R), R.sum(1), FLOAT64)


@pytest.mark.parametrize("rule", [RULES["w_squared"], RULES["flat"]])
def test_input_does_not_matter(rule) -> None:
    assert_close(rule(X, W, b, R), rule(torch.zeros_like(X), W, b, R), FLOAT64)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_edges_stay_finite(rule) -> None:
    zero = rule(torch.zeros_like(X), torch.zeros_like(W), b, R)
    assert_close(zero, torch.zeros_like(X), FLOAT64)
    assert rule(X[:0], W, b, R[:0]).shape == (0, 6)
