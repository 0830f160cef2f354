"""Errors of the passes. `relcompile` re-exports them; a command line prints their message as it stands."""


class PassError(Exception):
    """Root of all errors that a pass raises on purpose."""


class InternalError(PassError):
    """A fault of relcompile itself: nothing that the user gave is to blame, and nothing that the user can mend."""


class InvariantError(InternalError):
    """A pass broke, or was given, a graph that its stage does not allow."""


class MiscompilationError(InternalError):
    """An explainer does not predict what its model predicts."""


class UnsupportedOperatorError(PassError):
    """The model holds operators that relevance cannot be propagated through."""


class UnsupportedRuleError(PassError):
    """A rule was assigned to an operator, or to a value, that it is not defined for."""


class OutsideRuleError(PassError):
    """A rule from outside failed, or returned what no rule may."""


class UnknownLayerError(PassError):
    """A layer does not exist, is used several times, or lies on no way from the input to the output."""
