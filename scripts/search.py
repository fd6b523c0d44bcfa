"""Search for the settings that do best on validation: python scripts/search.py --help"""

from benchmarks.search import main

if __name__ == "__main__":
    main()
