"""`python -m hasched` is the command `hasched`."""

from hasched.cli.main import main

main()
