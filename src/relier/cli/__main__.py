"""Run the command line as `python -m relier.cli`."""

from relier.cli.main import main

main()
