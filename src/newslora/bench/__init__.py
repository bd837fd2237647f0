"""Speed as a ratio: newslora and the stock stack on the same rows, in one run, by turns."""
