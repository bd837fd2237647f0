"""Encoders on packed tokens: the stock modules' weights, computed without padding and with an explicit backward."""
