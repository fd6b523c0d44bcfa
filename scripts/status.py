"""What has been run of each table: python scripts/status.py table_3"""

from benchmarks.status import main

if __name__ == "__main__":
    main()
