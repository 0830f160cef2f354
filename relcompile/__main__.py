"""`python -m relcompile`."""

from relcompile.cli.main import console

console()
