"""The matrices below the operators: products with banded, circulant and separable ones, and solving with them."""
