"""What rules are made of: the contract, and frames for direct and layer-by-layer rules."""
