"""`python -m sweeps`, and the console script `sweeps`."""


def main() -> None:
    """Run the command line."""
    from sweeps.signals import end_on_signals

    end_on_signals()  # first, as importing the rest takes a while

    from sweeps.cli import main as run

    run()


if __name__ == "__main__":  # worker processes import this module too, but do not need the command line
    main()
