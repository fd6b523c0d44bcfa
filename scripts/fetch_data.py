"""Fetch public data sets into DFA_DATA_DIR: python scripts/fetch_data.py cora pubmed"""

from benchmarks.data import main

if __name__ == "__main__":
    main()
