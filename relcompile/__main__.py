"""`python -m relcompile`."""

from relcompile.cli.main import main

main()
