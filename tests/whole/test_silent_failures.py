"""The networks on which hook-based libraries are silently wrong (peers.md 1.4): here they are right, or refused.

Conservation alone proves little, so every net is held to autograd (gradient), to `input * gradient` (LRP-0 of a
ReLU net without biases, which epsilon must approach) and, under z+, to a twin built from plain modules or to the
matrix-form oracle of `tests/oracles`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import relcompile
from passes.errors import UnsupportedOperatorError
from relcompile.methods.presets import epsilon
from tests.compare import FLOAT64, assert_close, assert_conserved
from tests.oracles import affine, local, network
from tests.oracles.nets import Function
from tests.oracles.network import Activation, Add, Affine, Concat, Flatten, MaxPool, Step

CLASSES = 3
IMAGE, SIGNAL, VOLUME = (2, 6, 6), (2, 8), (1, 4, 4, 4)
Forward = Callable[["Net", Tensor], Tensor]


class Net(nn.Module):
    """Bias-free parts `a`, `b` (the same shape in and out) and a head; `forward` is the case."""

    def __init__(self, forward: Forward, shape: tuple[int, ...] = IMAGE, a: Callable[[], nn.Module] | None = None):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(5)
            conv = [nn.Conv1d, nn.Conv2d, nn.Conv3d][len(shape) - 2]
            self.a = a() if a else conv(shape[0], shape[0], 3, padding=1, bias=False)
            self.b = conv(shape[0], shape[0], 3, padding=1, bias=False)
            self.relu = nn.ReLU()
            self.inplace = nn.ReLU(inplace=True)
            self.pool = nn.MaxPool2d(2)
            self.body = forward
            self.double().eval()
            with torch.no_grad():
                features = forward(self, torch.zeros(1, *shape, dtype=torch.float64)).flatten(1).shape[1]
            self.head = nn.Linear(features, CLASSES, bias=False).double()
            self.head.weight.data[0].abs_()  # so that the largest logit is positive: z+ conserves

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self, x).flatten(1))


def residual_in_place(net: Net, x: Tensor) -> Tensor:
    y = functional.relu(net.a(x)).clone()  # autograd could not undo a ReLU that is overwritten
    y += functional.relu(net.b(x))
    return y


def cat(net: Net, x: Tensor) -> Tensor:
    return torch.cat([net.relu(net.a(x)), net.relu(net.b(x))], 1)


def residual(net: Net, x: Tensor) -> Tensor:
    y = net.relu(net.a(x))
    return y + net.relu(net.b(y))


def gate(net: Net, x: Tensor) -> Tensor:
    return net.relu(net.a(x)) * torch.sigmoid(net.b(x))


def plain(net: Net, x: Tensor) -> Tensor:
    return net.relu(net.a(x))


def statistics(channels: int) -> nn.Module:
    norm = nn.BatchNorm2d(channels)
    nn.init.normal_(norm.get_buffer("running_mean"))
    nn.init.uniform_(norm.get_buffer("running_var"), 0.5, 2.0)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias)
    return norm


def without_bias(make: Callable[..., nn.Module], *args: int, **settings: int) -> Callable[[], nn.Module]:
    return partial(make, *args, bias=False, **settings)


# ReLU nets without biases: gradient * input = LRP-0 = the limit of epsilon, and z+ conserves.
RECTIFIED: dict[str, Net] = {
    "modules": Net(lambda n, x: n.pool(n.relu(n.b(n.relu(n.a(x)))))),
    "F.relu": Net(lambda n, x: n.pool(functional.relu(n.b(functional.relu(n.a(x)))))),
    "one ReLU reused": Net(lambda n, x: n.relu(n.b(n.relu(n.a(x))))),
    "one conv reused": Net(lambda n, x: n.relu(n.a(n.relu(n.a(x))))),
    "in-place ReLU": Net(lambda n, x: n.pool(n.inplace(n.b(n.inplace(n.a(x)))))),
    "F.conv2d": Net(lambda n, x: functional.relu(functional.conv2d(x, n.get_parameter("a.weight"), padding=1))),
    "F.linear": Net(lambda n, x: functional.relu(functional.linear(x, n.get_parameter("a.weight").flatten(1)[:, :6]))),
    "x @ W.T": Net(lambda n, x: functional.relu(x @ n.get_parameter("a.weight").flatten(1)[:, :6].T)),
    "x + f(x)": Net(residual),
    "x += f(x)": Net(residual_in_place),
    "mean": Net(lambda n, x: n.relu(n.a(x)).mean((2, 3))),
    "cat": Net(cat),
    "grouped": Net(plain, a=without_bias(nn.Conv2d, 2, 4, 3, groups=2)),
    "depthwise, two a channel": Net(plain, a=without_bias(nn.Conv2d, 2, 4, 3, padding=1, groups=2)),
    "adaptive average": Net(lambda n, x: functional.adaptive_avg_pool2d(n.relu(n.a(x)), 2)),
    "adaptive average, uneven": Net(lambda n, x: functional.adaptive_avg_pool2d(n.relu(n.a(x)), 4)),
    "Conv1d": Net(plain, SIGNAL),
    "Conv3d": Net(plain, VOLUME),
    "ConvTranspose": Net(plain, a=without_bias(nn.ConvTranspose2d, 2, 3, 3, stride=2, padding=1)),
    "Upsample": Net(lambda n, x: functional.interpolate(n.relu(n.a(x)), scale_factor=2)),
    "Upsample, bilinear": Net(lambda n, x: functional.interpolate(n.relu(n.a(x)), scale_factor=2, mode="bilinear")),
}
OTHERS: dict[str, Net] = {
    "a * sigmoid(b)": Net(gate),
    "batch norm after relu": Net(lambda n, x: n.b(n.a(functional.relu(x))), a=partial(statistics, 2)),
    "batch norm before relu": Net(lambda n, x: n.relu(n.a(n.b(x))), a=partial(statistics, 2)),
}
NETS = {**RECTIFIED, **OTHERS}
TARGET = torch.tensor([0, 2, 1])


def sample(net: Net) -> Tensor:
    shape = {3: SIGNAL, 4: IMAGE, 5: VOLUME}[net.b.weight.dim()]
    return torch.randn(3, *shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64)


def gradient(net: nn.Module, x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(net(leaf)[torch.arange(len(x)), TARGET].sum(), leaf)[0]


@pytest.mark.parametrize("name", NETS)
def test_gradient(name: str) -> None:
    net = NETS[name]
    x = sample(net)
    output, relevance = relcompile.compile(net, x, rule="gradient")(x, TARGET)
    assert_close(output, net(x), FLOAT64)
    assert_close(relevance, gradient(net, x), FLOAT64)


@pytest.mark.parametrize("name", RECTIFIED)
def test_epsilon_is_near_input_times_gradient(name: str) -> None:
    net = NETS[name]
    x = sample(net)
    _, relevance = relcompile.compile(net, x, rule=epsilon(1e-12))(x, TARGET)
    assert_close(relevance, x * gradient(net, x), 1e-6)


@pytest.mark.parametrize("name", RECTIFIED)
def test_z_plus_conserves(name: str) -> None:
    net = NETS[name]
    x = sample(net)
    output, relevance = relcompile.compile(net, x, rule="z+", target="argmax")(x)
    assert output.amax(1).min() > 0
    assert_conserved(relevance, output.amax(1), 1e-3)


# Each against a network that has no trap in it.
TWINS: dict[str, Forward] = {
    "F.relu": lambda n, x: n.pool(n.relu(n.b(n.relu(n.a(x))))),
    "in-place ReLU": lambda n, x: n.pool(n.relu(n.b(n.relu(n.a(x))))),
    "F.conv2d": plain,
    "x += f(x)": lambda n, x: n.relu(n.a(x)) + n.relu(n.b(x)),
}


@pytest.mark.parametrize("rule", ["z+", "epsilon", "alpha2beta1"])
@pytest.mark.parametrize("name", TWINS)
def test_twin(name: str, rule: str) -> None:
    net, twin = NETS[name], Net(TWINS[name])
    x = sample(net)
    got = relcompile.compile(net, x, rule=rule)(x, TARGET)[1]
    assert_close(got, relcompile.compile(twin, x, rule=rule)(x, TARGET)[1], FLOAT64)


def weights(net: Net, name: str) -> Affine:
    weight = net.get_parameter(f"{name}.weight").detach()
    return Affine(partial(functional.conv2d, padding=1), {"weight": weight})


def as_steps(net: Net, *steps: Step) -> list[Step]:
    head = Affine(functional.linear, {"weight": net.head.weight.detach()})
    return [*steps, Step("flat", Flatten(), (steps[-1].name,)), Step("head", head, ("flat",))]


def relu() -> Activation:
    return Activation(functional.relu)


def oracle_steps(name: str) -> list[Step]:
    net = NETS[name]
    a, b = weights(net, "a"), weights(net, "b")
    first = [Step("a", a, ("input",)), Step("a_relu", relu(), ("a",))]
    both = [*first, Step("b", b, ("input",)), Step("b_relu", relu(), ("b",))]
    pool = Step("pool", MaxPool(local.Pool((2, 2), (2, 2))), ("y",))
    then_b = [*first, Step("b", b, ("a_relu",)), Step("y", relu(), ("b",))]
    table = {
        "modules": [*then_b, pool],
        "F.relu": [*then_b, pool],
        "in-place ReLU": [*then_b, pool],
        "one ReLU reused": then_b,
        "one conv reused": [*first, Step("again", a, ("a_relu",)), Step("y", relu(), ("again",))],
        "F.conv2d": first,
        "x + f(x)": [*then_b, Step("sum", Add(), ("a_relu", "y"))],
        "x += f(x)": [*both, Step("sum", Add(), ("a_relu", "b_relu"))],
        "cat": [*both, Step("cat", Concat(), ("a_relu", "b_relu"))],
        "mean": [*first, Step("mean", Affine(lambda x: x.mean((2, 3)), kind="average"), ("a_relu",))],
        "adaptive average": [
            *first,
            Step("mean", Affine(partial(functional.adaptive_avg_pool2d, output_size=2), kind="average"), ("a_relu",)),
        ],
    }
    return as_steps(net, *table[name])


ORACLE = {
    "activation": local.pass_through,
    "add": partial(local.proportional, eps=0.0),
    "average": partial(affine.epsilon, eps=0.0, bias="none"),
    "max_pool": local.winner_takes_all,
}
ORACLES = {
    "z+": partial(affine.z_plus, bias="none", eps=1e-9),
    "epsilon=0.1": partial(affine.epsilon, bias="full", eps=0.1),
}
BY_ORACLE = [
    "modules", "F.relu", "in-place ReLU", "one ReLU reused", "one conv reused", "F.conv2d", "x + f(x)", "x += f(x)",
    "cat", "mean", "adaptive average",
]  # fmt: skip


@pytest.mark.parametrize("rule", ORACLES)
@pytest.mark.parametrize("name", BY_ORACLE)
def test_oracle(name: str, rule: str) -> None:
    net, steps = NETS[name], oracle_steps(name)
    x = sample(net)
    assert_close(network.forward(steps, x)["head"], net(x), FLOAT64)
    expected = network.explain(steps, x, TARGET, {**ORACLE, "affine": ORACLES[rule]}, start="logit")["input"]
    assert_close(relcompile.compile(net, x, rule=rule)(x, TARGET)[1], expected, 1e-8)


def test_gate_gives_all_to_the_signal() -> None:
    """a * sigmoid(b): as if the gate were a constant scale."""
    net = NETS["a * sigmoid(b)"]
    x = sample(net)
    scale = torch.sigmoid(net.b(x)).detach()
    expected = gradient(Net(lambda n, y: n.relu(n.a(y)) * scale), x) * x
    assert_close(relcompile.compile(net, x, rule=epsilon(1e-12))(x, TARGET)[1], expected, 1e-6)


@pytest.mark.parametrize("name", ["batch norm after relu", "batch norm before relu"])
@pytest.mark.parametrize("rule", ["z+", "epsilon"])
def test_the_ledger_shows_what_batch_norm_absorbs(name: str, rule: str) -> None:
    net = NETS[name]
    x = sample(net)
    output, relevance, absorbed = relcompile.compile(net, x, rule=rule, absorbed=True)(x, TARGET)
    total = torch.cat([relevance.flatten(1), absorbed], 1)
    assert_conserved(total, output[torch.arange(3), TARGET], 1e-5)


def test_resnet_conserves_without_a_canonizer(network) -> None:
    model = network("resnet18")
    x = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    output, relevance = relcompile.compile(model, x, rule="z+", target="argmax")(x)
    assert_conserved(relevance, output.amax(1), 1e-3)


class Recurrent(nn.Module):
    """`shortcut` gives relevance another way round: it must not be taken for the whole way."""

    def __init__(self, layer: nn.Module, shortcut: bool) -> None:
        super().__init__()
        self.mixer, self.shortcut = layer, shortcut
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        y = self.mixer(x, x, x) if isinstance(self.mixer, nn.MultiheadAttention) else self.mixer(x)
        y = y[0] if isinstance(y, tuple) else y
        return self.head((x + y if self.shortcut else y).mean(1))


UNCOVERED: dict[str, Callable[[Tensor], Tensor]] = {
    "lgamma": lambda x: x.lgamma(),
    "i0": lambda x: x.i0(),
}


@pytest.mark.parametrize("shortcut", [False, True])
@pytest.mark.parametrize("rule", ["z+", "gradient"])
@pytest.mark.parametrize("name", UNCOVERED)
def test_uncovered_operators_are_refused(name: str, rule: str, shortcut: bool) -> None:
    net = Recurrent(Function(UNCOVERED[name]), shortcut).eval()
    with pytest.raises(UnsupportedOperatorError, match=rf"mixer \({name}, output .*\.py:\d+: "):
        relcompile.compile(net, torch.randn(2, 5, 8), rule=rule)


COVERED: dict[str, Callable[[], nn.Module]] = {
    "LSTM": partial(nn.LSTM, 8, 8, batch_first=True),
    "two GRUs, both ways": partial(nn.GRU, 8, 4, 2, batch_first=True, bidirectional=True),
    "RNN": partial(nn.RNN, 8, 8, batch_first=True, nonlinearity="relu"),
    "LayerNorm": partial(nn.LayerNorm, 8),
    "GroupNorm": partial(nn.GroupNorm, 5, 5),
    "RMSNorm": partial(nn.RMSNorm, 8),
    "attention": partial(nn.MultiheadAttention, 8, 2, batch_first=True),
}


@pytest.mark.parametrize("name", COVERED)
def test_what_others_overlook_is_covered(name: str) -> None:
    net, x = Recurrent(COVERED[name](), True).eval().double(), torch.randn(3, 5, 8).double()
    assert_close(relcompile.compile(net, x, rule="gradient")(x, TARGET)[1], gradient(net, x), FLOAT64)
    output, relevance, absorbed = relcompile.compile(net, x, rule="cp-lrp", absorbed=True)(x, TARGET)
    assert_conserved(torch.cat([relevance.flatten(1), absorbed], 1), output[torch.arange(3), TARGET], 1e-8)
    assert absorbed.abs().max() > 0


SEVERAL_RESULTS: dict[str, Callable[[Tensor], Tensor]] = {
    "topk": lambda x: x.topk(8, dim=-1)[0],
    "sort": lambda x: x.sort(-1)[0],
    "min": lambda x: x.min(1, keepdim=True)[0],
    "median": lambda x: x.median(1, keepdim=True)[0],
}


@pytest.mark.parametrize("name", SEVERAL_RESULTS)
def test_operators_with_several_results_are_not_overlooked(name: str) -> None:
    net = Net(lambda n, x: x + SEVERAL_RESULTS[name](n.a(x)), SIGNAL)
    x = sample(net)
    try:
        relevance = relcompile.compile(net, x, rule="gradient")(x, TARGET)[1]
    except UnsupportedOperatorError as error:
        assert name in str(error)  # noqa: PT017  (either answer is right: the gradient, or a refusal)
        return
    assert_close(relevance, gradient(net, x), FLOAT64)


ACTIVE_WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda x: functional.linear(torch.ones(4, 16, dtype=x.dtype), x.flatten(1)).T,
    "bias": lambda x: torch.addmm(x[:, 0], x.flatten(1), torch.ones(16, 8, dtype=x.dtype)),
    "alpha and beta": lambda x: torch.addmm(
        torch.ones(8, dtype=x.dtype), x.flatten(1), torch.ones(16, 8, dtype=x.dtype), beta=0.5, alpha=2
    ),
    "constant from the left": lambda x: torch.ones(3, 2, dtype=x.dtype) @ x,
    "broadcast": lambda x: x.unsqueeze(1) @ x[:, None, :1].expand(-1, 3, -1, -1).mT,
}


@pytest.mark.parametrize("name", ACTIVE_WEIGHTS)
def test_every_operand_counts(name: str) -> None:
    net = Net(lambda n, x: ACTIVE_WEIGHTS[name](x), SIGNAL)
    x = sample(net)
    try:
        output, relevance = relcompile.compile(net, x, rule="gradient")(x, TARGET)
    except UnsupportedOperatorError:
        return
    assert_close(output, net(x), FLOAT64)
    assert_close(relevance, gradient(net, x), FLOAT64)
