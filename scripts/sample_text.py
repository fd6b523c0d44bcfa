"""Text from a trained model: python scripts/sample_text.py results/runs/wikitext2/... --prompt "the" """

from benchmarks.language.sample import main

if __name__ == "__main__":
    main()
