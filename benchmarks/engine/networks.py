"""The networks that every measurement of the engine is made with."""

from __future__ import annotations

from benchmarks.subject import Network

W1 = Network("W1", 10, 32, 2, 2, 32)
W2 = Network("W2", 20, 64, 2, 10, 32)
W3 = Network("W3", 64, 128, 2, 10, 64)
W4 = Network("W4", 784, 256, 1, 10, 128)
NETWORKS = (W1, W2, W3, W4)
