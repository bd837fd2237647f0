"""Sources -> labelled articles -> tokens -> batches."""
