"""Make a table or figure of the paper: python scripts/reproduce.py table_3"""

from benchmarks.reproduce import main

if __name__ == "__main__":
    main()
