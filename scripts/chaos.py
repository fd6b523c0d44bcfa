"""Kill the processes of a sweep at random moments and compare what it leaves: python scripts/chaos.py --kills 20"""

from benchmarks.chaos import main

if __name__ == "__main__":
    main()
