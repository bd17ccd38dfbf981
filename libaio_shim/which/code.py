"""System call numbers in machine code: calls of libc's syscall(), and the bare instruction.

No disassembler: a call is found by its bytes, and its number by the last instruction shortly before that loads a
constant into the register for it.  So a number that is computed, or handed on by a wrapper function, is not seen; those
are counted as unknown.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from libaio_shim.which.objects import Object

AIO = {
    "EM_X86_64": {206: "io_setup", 207: "io_destroy", 208: "io_getevents", 209: "io_submit", 210: "io_cancel",
                  333: "io_pgetevents"},
    "EM_AARCH64": {0: "io_setup", 1: "io_destroy", 2: "io_submit", 3: "io_cancel", 4: "io_getevents",
                   292: "io_pgetevents"},
}  # fmt: skip
IO_URING = {425: "io_uring_setup", 426: "io_uring_enter", 427: "io_uring_register"}
NEAR = 96  # bytes between the constant and the call


@dataclass
class Calls:
    """Numbers found, and how many calls had none to be seen."""

    numbers: set[int] = field(default_factory=set)
    unknown: int = 0

    def add(self, number: int | None) -> None:
        if number is None:
            self.unknown += 1
        else:
            self.numbers.add(number)


def names(machine: str, calls: Calls) -> list[str]:
    """The AIO calls among them."""
    known = AIO.get(machine, {})
    return [known[number] for number in sorted(calls.numbers) if number in known]


def io_uring(calls: Calls) -> list[str]:
    """The io_uring calls among them; the numbers are the same on every machine."""
    return [IO_URING[number] for number in sorted(calls.numbers) if number in IO_URING]


def by_instruction(item: Object) -> Calls:
    """What the bare instruction is used for."""
    calls = Calls()
    for _, text in item.code:
        if item.machine == "EM_X86_64":
            for match in re.finditer(rb"\x0f\x05", text):
                if not _x86_in_a_call(text, match.start()):
                    calls.add(_x86_constant(text, match.start(), _X86_EAX))
        elif item.machine == "EM_AARCH64":
            for match in re.finditer(rb"\x01\x00\x00\xd4", text):  # svc #0
                if match.start() % 4 == 0:
                    calls.add(_arm_constant(text, match.start(), 8))
    return calls


def by_function(item: Object) -> Calls:
    """What libc's syscall() is used for."""
    calls = Calls()
    slots = set(item.slots)
    if not slots:
        return calls
    find = {"EM_X86_64": _x86_callers, "EM_AARCH64": _arm_callers}.get(item.machine)
    if find is None:
        calls.unknown += 1
        return calls
    constant = _x86_edi if item.machine == "EM_X86_64" else _arm_x0
    for text, place in find(item, slots):
        calls.add(constant(text, place))
    return calls


# x86-64.

_X86_EAX = re.compile(rb"(?:\xb8|\x48\xc7\xc0)(....)", re.DOTALL)  # mov $imm32, %eax; mov $imm32, %rax
_X86_EDI = re.compile(rb"(?:\xbf|\x48\xc7\xc7)(....)", re.DOTALL)  # the same with %edi, %rdi
_LARGEST = 600  # system call numbers end below


def _x86_constant(text: bytes, end: int, load: re.Pattern[bytes]) -> int | None:
    found = None
    for match in load.finditer(text, max(0, end - NEAR), end):
        (value,) = struct.unpack("<I", match[1])
        if value < _LARGEST:
            found = value
    return found


def _x86_in_a_call(text: bytes, place: int) -> bool:
    """Whether these two bytes are part of the distance of a call or jump that leads somewhere in this text."""
    for start in range(max(0, place - 4), place):
        if text[start] in b"\xe8\xe9" and start + 5 <= len(text) and place + 2 <= start + 5:
            (distance,) = struct.unpack_from("<i", text, start + 1)
            if 0 <= start + 5 + distance < len(text):
                return True
    return False


def _x86_edi(text: bytes, place: int) -> int | None:
    return _x86_constant(text, place, _X86_EDI)


def _x86_callers(item: Object, slots: set[int]) -> Iterator[tuple[bytes, int]]:
    """Each place that calls or jumps to what one of the slots points at, directly or through a stub."""
    stubs = set()
    for address, text in item.code:
        for match in re.finditer(rb"\xff[\x15\x25](....)", text, re.DOTALL):  # call or jmp *slot(%rip)
            (distance,) = struct.unpack("<i", match[1])
            if address + match.end() + distance not in slots:
                continue
            yield text, match.start()
            start = address + match.start()
            stubs |= {start, start - 1, start - 4, start - 5}  # behind `bnd` or `endbr64`
    for address, text in item.code:
        for match in re.finditer(rb"[\xe8\xe9](?=(....))", text, re.DOTALL):  # call or jmp
            (distance,) = struct.unpack("<i", match[1])
            if address + match.start() + 5 + distance in stubs:
                yield text, match.start()


# aarch64: every instruction has four bytes.


def _arm_constant(text: bytes, end: int, register: int) -> int | None:
    """The last `mov wN, #imm` or `mov xN, #imm` before."""
    for place in range(end - 4, max(-1, end - NEAR), -4):
        (word,) = struct.unpack_from("<I", text, place)
        if word & 0x7FE0001F == 0x52800000 | register:
            return int(word >> 5 & 0xFFFF)
    return None


def _arm_x0(text: bytes, place: int) -> int | None:
    return _arm_constant(text, place, 0)


def _arm_callers(item: Object, slots: set[int]) -> Iterator[tuple[bytes, int]]:
    stubs = set()
    for address, text in item.code:
        for place in range(0, len(text) - 8, 4):
            adrp, ldr = struct.unpack_from("<II", text, place)
            if adrp & 0x9F000000 != 0x90000000 or ldr & 0xFFC00000 != 0xF9400000:
                continue
            pages = (adrp >> 5 & 0x7FFFF) << 2 | adrp >> 29 & 3
            pages -= (pages & 0x100000) << 1
            page = ((address + place) & ~0xFFF) + (pages << 12)
            if page + ((ldr >> 10 & 0xFFF) << 3) in slots:
                stubs |= {address + place, address + place - 4}  # behind `bti c`
    for address, text in item.code:
        for place in range(0, len(text) - 4, 4):
            (word,) = struct.unpack_from("<I", text, place)
            if word & 0x7C000000 != 0x14000000:  # b, bl
                continue
            distance = word & 0x3FFFFFF
            distance -= (distance & 0x2000000) << 1
            if address + place + distance * 4 in stubs:
                yield text, place
