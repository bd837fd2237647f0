"""What is wrong with labelled rows: copies, leaks, doubtful labels, damaged text."""
