"""Language modelling: a Transformer on WikiText (Table 5)."""
