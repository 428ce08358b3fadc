"""What one device does in a compiled program, read from the program's text."""

import importlib
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax

_HLO: Any = importlib.import_module("jaxlib._hlo")  # XLA's own count, which is not public
_JAX: Any = importlib.import_module("jaxlib._jax")
COLLECTIVES = "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"
_COLLECTIVE = re.compile(rf" ({COLLECTIVES})(?:-start)?\(")
_METADATA = re.compile(r', metadata=\{(?:[^"}]|"[^"]*")*\}')
_HEADING = re.compile(r"^(?:ENTRY )?%(\S+) \(.*\{$", re.M)
_CALLED = re.compile(r"\b(?:body|branch_computations|calls|to_apply)=\{?((?:(?:, )?%[\w.-]+)+)")
_LOOP = re.compile(r" while\(.*condition=%([\w.-]+), body=%([\w.-]+)")
_LENGTH = re.compile(r"s32\[\]\S* constant\((\d+)\)")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')


Parts = dict[str, str]  # the computations of a program, by name


def computations(text: str) -> Parts:
    """Takes a program's text apart."""
    text = _METADATA.sub("", text)
    headings = list(_HEADING.finditer(text))
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    parts = zip(headings, ends, strict=True)
    return {heading[1]: text[heading.start() : end] for heading, end in parts}


def flops(parts: Parts, rounds: int) -> float:
    """Floating-point operations, a loop of unknown length run `rounds` times."""
    return _repeated(parts, entry(parts), _flops_of_one_round, rounds)


def cycles(parts: Parts, rounds: int) -> float:
    """What the compiler estimates for the instructions that it gives a number; no measurement.

    How far instructions overlap, or wait for memory, is not in it.
    """
    return _repeated(parts, entry(parts), _cycles_of_one_round, rounds)


def collectives(parts: Parts) -> Counter[str]:
    """How many of each kind there are."""
    return Counter(_COLLECTIVE.findall("".join(parts.values())))


def collectives_in_loops(parts: Parts) -> int:
    """How many stand in the body of a loop, or in what that calls."""
    bodies = [body for part in parts.values() for _, body in _LOOP.findall(part)]
    inside: set[str] = set()
    while bodies:
        name = bodies.pop()
        if name not in inside:
            inside.add(name)
            bodies += re.findall(r"%([\w.-]+)", ", ".join(_CALLED.findall(parts[name])))
    return sum(len(_COLLECTIVE.findall(parts[name])) for name in inside)


def loops_after_collectives(parts: Parts) -> int:
    """How many loops the schedule has after its first collective."""
    schedule = parts[entry(parts)]
    first = _COLLECTIVE.search(schedule)
    return len(_LOOP.findall(schedule, first.start())) if first else 0


def entry(parts: Parts) -> str:
    """The computation that is the program."""
    return next(name for name, part in parts.items() if part.startswith("ENTRY"))


def _repeated(
    parts: Parts, name: str, one_round: Callable[[Parts, str], float], rounds: int
) -> float:
    """What XLA counts with each loop run once, for loops that run as often as they do."""
    found = one_round(parts, name)
    for condition, body in _LOOP.findall(parts[name]):
        length = max(map(int, _LENGTH.findall(parts[condition])), default=rounds)
        found += length * _repeated(parts, body, one_round, rounds) - one_round(parts, body)
    return found


def _flops_of_one_round(parts: Parts, name: str) -> float:
    """XLA's count, of a program that begins at a computation."""
    plain = {other: part.removeprefix("ENTRY ") for other, part in parts.items()}
    text = "".join((plain | {name: f"ENTRY {plain[name]}"}).values())
    module = _HLO.hlo_module_from_text(f"HloModule part\n\n{text}")
    return _JAX.hlo_module_cost_analysis(jax.devices()[0].client, module)["flops"]


def _cycles_of_one_round(parts: Parts, name: str) -> float:
    own = sum(map(int, _CYCLES.findall(parts[name])))
    return own + sum(_cycles_of_one_round(parts, body) for _, body in _LOOP.findall(parts[name]))
