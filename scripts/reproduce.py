"""Make a table or figure: the same as `python -m benchmarks reproduce`."""

from benchmarks.commands.reproduce import main

if __name__ == "__main__":
    main()
