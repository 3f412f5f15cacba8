"""Inference on a CPU in C++ of our own, compiled for the processor at its first use; see `engine.cpp`."""
