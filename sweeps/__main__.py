if __name__ == "__main__":
    # Worker processes import this module too, and need nothing of the command line.
    from sweeps.interruption import end_on_signals

    end_on_signals()  # first, as the import of torch takes seconds

    from sweeps.cli import main

    main()
