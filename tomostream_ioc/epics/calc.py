"""EPICS CALC expressions: compiled once, evaluated with the arguments A to L."""

from __future__ import annotations

import math
import operator
import random
import re
from collections.abc import Callable, Mapping
from typing import Any

Values = Mapping[str, float]
Evaluate = Callable[[Values], float]

_TOKEN = re.compile(
    r"\s*(?:(0[xX][0-9a-fA-F]+|\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)"
    r"|([A-Za-z][A-Za-z0-9]*)|(\*\*|&&|\|\||==|!=|<=|>=|<<|>>|[-+*/%^()?:,<>=!#&|~]))"
)

# Left-associative binary operators by rising precedence, as EPICS base's postfix.c.
_LEVELS: tuple[dict[str, Callable[[float, float], float]], ...] = (
    {"||": lambda a, b: float(bool(a) or bool(b)), "OR": lambda a, b: float(int(a) | int(b)),
     "|": lambda a, b: float(int(a) | int(b)), "XOR": lambda a, b: float(int(a) ^ int(b))},
    {"&&": lambda a, b: float(bool(a) and bool(b)), "AND": lambda a, b: float(int(a) & int(b)),
     "&": lambda a, b: float(int(a) & int(b)),
     "<<": lambda a, b: float(int(a) << (int(b) & 31)),
     ">>": lambda a, b: float(int(a) >> (int(b) & 31))},
    {"==": lambda a, b: float(a == b), "=": lambda a, b: float(a == b),
     "!=": lambda a, b: float(a != b), "#": lambda a, b: float(a != b),
     "<": lambda a, b: float(a < b), "<=": lambda a, b: float(a <= b),
     ">": lambda a, b: float(a > b), ">=": lambda a, b: float(a >= b)},
    {"+": operator.add, "-": operator.sub},
    {"*": operator.mul, "/": operator.truediv, "%": lambda a, b: float(math.fmod(int(a), int(b)))},
    {"**": math.pow, "^": math.pow},
)  # fmt: skip

_VARIABLES = frozenset({*"ABCDEFGHIJKL", "VAL"})
_CONSTANTS = {"PI": math.pi, "D2R": math.pi / 180, "R2D": 180 / math.pi}

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "ABS": abs, "SQR": math.sqrt, "SQRT": math.sqrt, "EXP": math.exp, "LOG": math.log10,
    "LOGE": math.log, "LN": math.log, "MIN": min, "MAX": max, "CEIL": math.ceil,
    "FLOOR": math.floor, "NINT": lambda a: math.floor(a + 0.5) if a >= 0 else math.ceil(a - 0.5),
    "SIN": math.sin, "COS": math.cos, "TAN": math.tan, "ASIN": math.asin, "ACOS": math.acos,
    "ATAN": math.atan, "ATAN2": lambda a, b: math.atan2(b, a), "SINH": math.sinh,
    "COSH": math.cosh, "TANH": math.tanh, "INT": math.trunc,
    "ISNAN": lambda *a: float(any(map(math.isnan, a))), "ISINF": lambda a: float(math.isinf(a)),
    "FINITE": lambda *a: float(all(map(math.isfinite, a))),
}  # fmt: skip


class CalcError(ValueError):
    """The expression can't be compiled, or not evaluated with these arguments."""


class Calculation:
    """A compiled expression.

    Raises CalcError for an expression that does not follow CALC's grammar. Assignments and
    several expressions in one (``;``) are not supported.
    """

    def __init__(self, expression: str):
        self._tokens = self._split(expression)
        self._at = 0
        try:
            self._evaluate = self._conditional()
        except RecursionError:
            raise CalcError("nested too deeply") from None
        if self._at != len(self._tokens):
            raise CalcError(f"{self._tokens[self._at]!r} is out of place")

    def __call__(self, values: Values) -> float:
        """Raises CalcError when the arithmetic fails (division by zero, a root of -1)."""
        try:
            return float(self._evaluate(values))
        except (ArithmeticError, ValueError, TypeError) as error:
            raise CalcError(str(error)) from error

    @staticmethod
    def _split(expression: str) -> list[str]:
        tokens, at = [], 0
        expression = expression.rstrip()
        while at < len(expression):
            match = _TOKEN.match(expression, at)
            if match is None:
                raise CalcError(f"{expression[at:]!r} is no part of an expression")
            tokens.append(match.group(match.lastindex or 0).upper())
            at = match.end()
        return tokens

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self, expected: str | None = None) -> str:
        token = self._peek()
        if not token or (expected is not None and token != expected):
            raise CalcError(f"{expected or 'an operand'} is missing")
        self._at += 1
        return token

    def _conditional(self) -> Evaluate:
        test = self._binary(0)
        if self._peek() != "?":
            return test
        self._take()
        yes = self._conditional()
        self._take(":")
        no = self._conditional()
        return lambda values: yes(values) if test(values) else no(values)

    def _binary(self, level: int) -> Evaluate:
        if level == len(_LEVELS):
            return self._unary()
        left = self._binary(level + 1)
        while self._peek() in _LEVELS[level]:
            operation = _LEVELS[level][self._take()]
            right = self._binary(level + 1)
            left = self._applied(operation, left, right)
        return left

    @staticmethod
    def _applied(operation: Callable[..., Any], *operands: Evaluate) -> Evaluate:
        return lambda values: operation(*(operand(values) for operand in operands))

    def _unary(self) -> Evaluate:
        token = self._take()
        if token == "-":
            return self._applied(operator.neg, self._unary())
        if token == "+":
            return self._unary()
        if token == "!":
            return self._applied(lambda a: float(not a), self._unary())
        if token in ("~", "NOT"):
            return self._applied(lambda a: float(~int(a)), self._unary())
        if token == "(":
            inner = self._conditional()
            self._take(")")
            return inner
        return self._operand(token)

    def _operand(self, token: str) -> Evaluate:
        if token[0].isdigit() or token[0] == ".":
            number = float(int(token, 16)) if token.startswith("0X") else float(token)
            return lambda values: number
        if token in _CONSTANTS:
            constant = _CONSTANTS[token]
            return lambda values: constant
        if token == "RNDM":
            return lambda values: random.random()
        if token in _FUNCTIONS:
            self._take("(")
            arguments = [self._conditional()]
            while self._peek() == ",":
                self._take()
                arguments.append(self._conditional())
            self._take(")")
            return self._applied(_FUNCTIONS[token], *arguments)
        if token in _VARIABLES:
            return lambda values: values[token]
        raise CalcError(f"{token!r} is unknown")
