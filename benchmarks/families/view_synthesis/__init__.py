"""View synthesis: neural radiance fields from pictures with known cameras (Tables 1, A5; Figures 1, A1 to A3)."""
