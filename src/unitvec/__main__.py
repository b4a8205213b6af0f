"""``python -m unitvec``."""

from unitvec.cli import main

main()
