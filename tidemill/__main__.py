"""`python -m tidemill`: the command line, by whichever Python has it, also where its scripts are not on the PATH."""

import sys

from tidemill.cli import main

if __name__ == "__main__":
    sys.exit(main())
