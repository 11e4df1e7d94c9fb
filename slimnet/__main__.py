"""`python -m slimnet`."""

from slimnet.cli import main

if __name__ == "__main__":
    main()
