"""LLVM IR written as text: types, values, functions, and a builder that appends instructions.

The compiled engine writes tens of thousands of instructions for a kernel. `llvmlite.ir` keeps each
as an object and prints it at the end; here an instruction is a line of text from the start, which
takes a quarter of the time. Names and meanings are those of `llvmlite.ir`, as far as they are used.
"""

from simulator.compiled.ir.builder import IRBuilder
from simulator.compiled.ir.module import Block, Function, Module
from simulator.compiled.ir.types import (
    FloatType,
    FunctionType,
    IntType,
    PointerType,
    Type,
    VectorType,
    VoidType,
)
from simulator.compiled.ir.values import Bitcast, Constant, Phi, Undefined, Value

__all__ = [
    "Bitcast",
    "Block",
    "Constant",
    "FloatType",
    "Function",
    "FunctionType",
    "IRBuilder",
    "IntType",
    "Module",
    "Phi",
    "PointerType",
    "Type",
    "Undefined",
    "Value",
    "VectorType",
    "VoidType",
]
