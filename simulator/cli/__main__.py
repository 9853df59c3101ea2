"""`python -m simulator.cli`: the command line without the installed script."""

from simulator.cli.commands import main

main()
