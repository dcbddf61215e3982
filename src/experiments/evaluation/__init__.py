"""How good a model is: embed once, score every dimension and precision; metrics, rankings, TREC files, their cache."""
