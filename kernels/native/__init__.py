"""C++ sources of the ops that run on the CPU; `fastvae.kernels.conv_relu_native` compiles and calls them."""
