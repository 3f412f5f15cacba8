"""Inference on a CPU in C++, compiled for the processor at the first use; see `engine.cpp`."""
