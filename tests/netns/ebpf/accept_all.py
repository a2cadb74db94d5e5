"""Puts a program that lets every packet through by itself at the ingress of an interface of this network namespace (tcx).

usage: accept_all.py INTERFACE before|after     before or after what is there
"""

import ctypes
import os
import platform
import socket
import struct
import sys

BPF_PROG_LOAD, BPF_PROG_ATTACH = 5, 8  # linux/bpf.h
SCHED_CLS, TCX_INGRESS, BEFORE, AFTER = 3, 46, 1 << 3, 1 << 4
RETURN_OK = struct.pack("<BBhi", 0xb7, 0, 0, 0) + struct.pack("<BBhi", 0x95, 0, 0, 0)  # r0 = TC_ACT_OK; exit


def bpf(command, attributes):
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
    number = {"x86_64": 321, "aarch64": 280}[platform.machine()]
    done = libc.syscall(number, command, buffer, 128)
    if done < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return done


def main():
    interface = socket.if_nametoindex(sys.argv[1])
    text, licence = ctypes.create_string_buffer(RETURN_OK), ctypes.create_string_buffer(b"GPL")
    program = bpf(BPF_PROG_LOAD, struct.pack("<IIQQ", SCHED_CLS, len(RETURN_OK) // 8, ctypes.addressof(text),
                                             ctypes.addressof(licence)))
    flags = BEFORE if sys.argv[2] == "before" else AFTER
    bpf(BPF_PROG_ATTACH, struct.pack("<IIII", interface, program, TCX_INGRESS, flags))


if __name__ == "__main__":
    main()
