"""Backbone + LoRA -> classifier -> logits; the adapter on disk."""
