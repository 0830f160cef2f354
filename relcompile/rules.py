"""Everything that a rule from outside of relcompile needs, and every rule that is inside.

A rule is a frozen object: `applies_to` names the kinds of call that it is defined for, `reads` the forms of messages
that it tells apart, and `propagate` turns the message that arrives at the output of a call into one for each of its
operands. This one, for a batch on axis 0, gives every input of a layer
the same share of what arrives:

    @dataclass(frozen=True)
    class Uniform:
        applies_to: ClassVar[tuple[type[Call], ...]] = (AffineCall,)
        reads: ClassVar[tuple[Form, ...]] = (Relevance,)

        def propagate(self, call: AffineCall, arriving: Relevance, /) -> Messages:
            total = arriving.relevance.sum(range(1, arriving.at.ndim))
            share = total.reshape([-1] + [1] * (call.x.ndim - 1)) * (1 / math.prod(call.x.shape[1:]))
            return (Relevance(call.x, share.expand_like(call.x)),)

`relcompile.Entry` and `relcompile.Composite` say where it goes; `relcompile.compile(model, x, rule=composite)` uses it.
"""

from passes.graphs.emitter import Value, aten
from passes.operators.activation import ActivationCall
from passes.operators.affine import AffineCall, ConvolutionCall, LinearCall
from passes.operators.arithmetic import (
    MatmulCall,
    NegateCall,
    ProductCall,
    QuotientCall,
    ReduceCall,
    ScaleCall,
    ShiftCall,
    SumCall,
)
from passes.operators.call import Call, UnaryCall
from passes.operators.pooling import AveragePoolCall, MaxPoolCall, ResampleCall
from passes.operators.softmax import SoftmaxCall
from passes.operators.structure import ConcatenateCall, MaximumCall, StructureCall, WhereCall
from passes.relevance.protocol.found_root import ROOT, Root
from passes.relevance.protocol.messages import Form, Message, Multiplier, Relevance, SecondOrder, SplitMultiplier
from passes.relevance.protocol.reference import Split, contributions, difference, reference
from passes.relevance.protocol.refuse import Refuse
from passes.relevance.protocol.rule import AnyRule, DifferenceRule, Messages, Rule, SpreadRule
from passes.relevance.protocol.spread import spread
from passes.relevance.protocol.stabilise import (
    Relative,
    Stabiliser,
    safe_divide,
    stabilise,
    stabiliser_level,
    without_zeros,
)
from passes.views.layer import Layer
from relcompile.methods.rules.adjoint import Adjoint, Fallback
from relcompile.methods.rules.affine import AlphaBeta, Contrastive, Epsilon, Gamma
from relcompile.methods.rules.deeplift import Rescale, RevealCancel
from relcompile.methods.rules.differences import (
    AffineDifference,
    EachPart,
    MatmulDifference,
    MaxDifference,
    SumOfDifferences,
)
from relcompile.methods.rules.guided import BetaSmooth, Deconvnet, Guided, RectGrad
from relcompile.methods.rules.input_layer import ByWeights, Flat, WSquared, ZBox
from relcompile.methods.rules.parameters import Bound, Bounds, like_input, per_channel, require_choice, require_positive
from relcompile.methods.rules.pattern import Normalised, PatternAttribution, PatternNet, RelevanceGradient
from relcompile.methods.rules.pointwise import PassThrough, ScoresUnder, SignalTakesAll
from relcompile.methods.rules.products import Half, Hold, Stop
from relcompile.methods.rules.residual import OneBranch, SplitByShare
from relcompile.methods.rules.roots.between_roots import BetweenRoots, ContributionsApart
from relcompile.methods.rules.roots.fixed_root import FixedRoot
from relcompile.methods.rules.roots.learned_root import LearnedRoot
from relcompile.methods.rules.roots.released_roots import ReleasedActivation, ReleasedConvolution, ReleasedDense
from relcompile.methods.rules.roots.root_losses import HingeEmbedding, Loss, SquaredError, StructuralSimilarity
from relcompile.methods.rules.roots.root_search import (
    AffineResponse,
    BetweenZeroAndInput,
    Constraint,
    Descent,
    LinearRegion,
    PointwiseResponse,
    Response,
    RootInBox,
    SoftmaxResponse,
    learn_root,
)

__all__ = [
    "ROOT",
    "ActivationCall",
    "Adjoint",
    "AffineCall",
    "AffineDifference",
    "AffineResponse",
    "AlphaBeta",
    "AnyRule",
    "AveragePoolCall",
    "BetaSmooth",
    "BetweenRoots",
    "BetweenZeroAndInput",
    "Bound",
    "Bounds",
    "ByWeights",
    "Call",
    "ConcatenateCall",
    "Constraint",
    "Contrastive",
    "ContributionsApart",
    "ConvolutionCall",
    "Deconvnet",
    "Descent",
    "DifferenceRule",
    "EachPart",
    "Epsilon",
    "Fallback",
    "FixedRoot",
    "Flat",
    "Form",
    "Gamma",
    "Guided",
    "Half",
    "HingeEmbedding",
    "Hold",
    "Layer",
    "LearnedRoot",
    "LinearCall",
    "LinearRegion",
    "Loss",
    "MatmulCall",
    "MatmulDifference",
    "MaxDifference",
    "MaxPoolCall",
    "MaximumCall",
    "Message",
    "Messages",
    "Multiplier",
    "NegateCall",
    "Normalised",
    "OneBranch",
    "PassThrough",
    "PatternAttribution",
    "PatternNet",
    "PointwiseResponse",
    "ProductCall",
    "QuotientCall",
    "RectGrad",
    "ReduceCall",
    "Refuse",
    "Relative",
    "ReleasedActivation",
    "ReleasedConvolution",
    "ReleasedDense",
    "Relevance",
    "RelevanceGradient",
    "ResampleCall",
    "Rescale",
    "Response",
    "RevealCancel",
    "Root",
    "RootInBox",
    "Rule",
    "ScaleCall",
    "ScoresUnder",
    "SecondOrder",
    "ShiftCall",
    "SignalTakesAll",
    "SoftmaxCall",
    "SoftmaxResponse",
    "Split",
    "SplitByShare",
    "SplitMultiplier",
    "SpreadRule",
    "SquaredError",
    "Stabiliser",
    "Stop",
    "StructuralSimilarity",
    "StructureCall",
    "SumCall",
    "SumOfDifferences",
    "UnaryCall",
    "Value",
    "WSquared",
    "WhereCall",
    "ZBox",
    "aten",
    "contributions",
    "difference",
    "learn_root",
    "like_input",
    "per_channel",
    "reference",
    "require_choice",
    "require_positive",
    "safe_divide",
    "spread",
    "stabilise",
    "stabiliser_level",
    "without_zeros",
]
