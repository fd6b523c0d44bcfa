"""Graphs: node classification and link prediction on citation graphs (Tables 3, 4, A.2 and A.4)."""
