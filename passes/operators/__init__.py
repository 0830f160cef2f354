"""What an operator *is*: its kind, its operands, its adjoint and what it does to signs.

Nothing outside this package knows operators by name.
"""
