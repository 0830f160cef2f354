"""`python -m relcompile`."""

from relcompile.cli import main

main()
