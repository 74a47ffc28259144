"""Time files in a process that believes its processor has no AVX: there XNNPACK uses its sparse kernels.

XNNPACK has kernels for weights that are mostly zeros. On x86 it leaves them alone where there is AVX, that is on
processors since 2011: they are written for SSE, and its authors expect dense kernels with AVX to be faster
(`xnn_is_chw_compatible_config` in its `src/xnnpack/hardware-config.h`). Is that so? Here it can be measured.

A program learns what its processor can do by the instruction CPUID. Linux can be told to stop a process at that
instruction (`arch_prctl(ARCH_SET_CPUID, 0)`, on processors with "CPUID faulting"); the signal handler below asks the
processor itself, takes some bits out of the answer and lets the process go on. It all happens in a child process:

    python -m compresskit.litert.without_avx {avx,simd} RUNS FOLDER

times every `.tflite` in a folder and prints one line of JSON.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from compresskit.litert.runtime import Latency, Session
from compresskit.litert.turns import latencies

HIDDEN: Final = ("avx", "simd")
"""What is hidden: the one bit that says "AVX", or all that came with it and after it (FMA, AVX2, AVX-512, AMX)."""

_SYS_ARCH_PRCTL, _ARCH_SET_CPUID = 158, 0x1012
_SIGSEGV, _SA_SIGINFO, _SA_NODEFER = 11, 4, 0x40000000
_RAX, _RBX, _RCX, _RDX, _RIP = 13, 11, 14, 12, 16  # places in ucontext_t's array of registers, which begins at byte 40
_CPUID = b"\x0f\xa2"
_ASK = bytes.fromhex("53 4989d0 89f8 89f1 0fa2 418900 41895804 41894808 4189500c 5b c3")
"""Machine code of `void ask(uint32 leaf, uint32 subleaf, uint32 answer[4])`: CPUID, and the answer stored."""


def _bits(*places: int) -> int:
    return sum(1 << place for place in places)


_TAKEN_OUT: Final[dict[str, dict[tuple[int, int], tuple[int, int, int, int]]]] = {
    "avx": {(1, 0): (0, 0, _bits(28), 0)},
    "simd": {
        (1, 0): (0, 0, _bits(12, 28, 29), 0),  # FMA, AVX, F16C
        (7, 0): (0, _bits(5, 16, 17, 21, 26, 27, 28, 30, 31), _bits(1, 6, 11, 12, 14), _bits(22, 23, 24, 25)),
        (7, 1): (_bits(4, 5, 23), 0, 0, 0),  # AVX2, AVX-512, VNNI, bfloat16, AMX
    },
}
"""For a leaf and a subleaf of CPUID, the bits of eax, ebx, ecx and edx to read as 0 (Intel's manual, volume 2A)."""


def latencies_without_avx(
    tflites: Mapping[str, bytes], *, hidden: str = "avx", runs: int = 200, timeout: float = 60.0
) -> dict[str, Latency]:
    """Time files on one thread, in a process from which AVX is hidden.

    Parameters
    ----------
    tflites
        Name to file; all of them read inputs of one shape.
    hidden
        "avx": XNNPACK's question is answered with no, and all its other kernels are as fast as ever. "simd": as if the
        processor were one of before 2011.
    runs
        Timed runs of each file, by turns, on zeros: what is read does not matter for the time.
    timeout
        Seconds.

    Returns
    -------
    dict of str to Latency

    Raises
    ------
    ValueError
        If this computer cannot hide it (another processor or system, a virtual machine that does not allow it), or
        `hidden` is neither.
    """
    if hidden not in HIDDEN:
        raise ValueError(f"hidden is {hidden!r}; choose {' or '.join(map(repr, HIDDEN))}")
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise ValueError(f"AVX is hidden on Linux and x86-64 only; this is {sys.platform} on {platform.machine()}")
    with tempfile.TemporaryDirectory() as folder:
        names = {f"{number}": name for number, name in enumerate(tflites)}
        for number, name in names.items():
            (Path(folder) / f"{number}.tflite").write_bytes(tflites[name])
        command = [sys.executable, "-m", __name__, hidden, str(runs), folder]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired as error:
            raise ValueError(f"timing without AVX took more than {timeout:g} s; give fewer runs") from error
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        raise ValueError(f"this processor or system does not let AVX be hidden (exit code {done.returncode})")
    return {names[number]: Latency(**found) for number, found in json.loads(lines[-1]).items()}


def _hide(taken_out: Mapping[tuple[int, int], tuple[int, int, int, int]]) -> Any:
    """Answer every CPUID of this process from now on with some bits taken out; keep what is returned alive."""
    libc = ctypes.CDLL(None, use_errno=True)
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(_ASK)
    start = ctypes.addressof(ctypes.c_char.from_buffer(page))
    ask = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p)(start)
    answer = (ctypes.c_uint32 * 4)()

    def fault(on: bool) -> int:
        return int(libc.syscall(_SYS_ARCH_PRCTL, _ARCH_SET_CPUID, 0 if on else 1))

    def handle(_signal: int, _info: int, context: int) -> None:
        registers = (ctypes.c_uint64 * 23).from_address(context + 40)
        if ctypes.string_at(registers[_RIP], 2) != _CPUID:  # a real error in memory: end as it would have
            os._exit(139)
        leaf, subleaf = registers[_RAX] & 0xFFFFFFFF, registers[_RCX] & 0xFFFFFFFF
        fault(False)
        ask(leaf, subleaf, ctypes.addressof(answer))
        fault(True)
        gone = taken_out.get((leaf, subleaf if leaf == 7 else 0), (0, 0, 0, 0))
        for register, value, bits in zip((_RAX, _RBX, _RCX, _RDX), answer, gone, strict=True):
            registers[register] = value & ~bits
        registers[_RIP] += len(_CPUID)

    handler = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(handle)
    action = _SigAction(ctypes.cast(handler, ctypes.c_void_p).value, flags=_SA_SIGINFO | _SA_NODEFER)
    if libc.sigaction(_SIGSEGV, ctypes.byref(action), None) or fault(True):
        raise OSError(ctypes.get_errno(), "CPUID cannot be made to fault here")
    return handler, page


class _SigAction(ctypes.Structure):
    """The struct sigaction of Linux's C library on x86-64."""

    _fields_ = (
        ("handler", ctypes.c_void_p), ("mask", ctypes.c_ulong * 16), ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )  # fmt: skip

    def __init__(self, handler: int | None, flags: int) -> None:
        super().__init__(handler=handler, flags=flags)


def main(arguments: list[str]) -> int:
    """Hide, time, print; see the head of this module."""
    hidden, runs, folder = arguments
    import ai_edge_litert.interpreter  # noqa: F401  # asks for nothing before the first file is run

    kept = _hide(_TAKEN_OUT[hidden])
    tflites = {path.stem: path.read_bytes() for path in sorted(Path(folder).glob("*.tflite"))}
    example = np.zeros((1, *Session(next(iter(tflites.values()))).inputs[0].shape), np.float32)
    found = latencies(tflites, example, rounds=-(-int(runs) // 10), runs=10)
    del kept
    print(json.dumps({name: vars(each) for name, each in found.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
