if __name__ == "__main__":
    # Worker processes import this module too, and need nothing of the command line.
    from sweeps.cli import main

    main()
