"""View synthesis: neural radiance fields (NeRF) on pictures with known cameras."""
