"""Many adapters on one encoder, behind HTTP."""
