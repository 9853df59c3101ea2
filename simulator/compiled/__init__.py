"""The compiled engine: programs as machine code of the host, made by LLVM through llvmlite."""
