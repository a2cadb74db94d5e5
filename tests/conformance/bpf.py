"""BPF programs on the devices of a network namespace (tcx): which there are, and how to detach one. `tc` knows nothing of
them, and Debian 12's bpftool lists none. Called by kernel.py, and as a program on a node:

    python3 bpf.py detach DEVICE ingress|egress
"""

import ctypes
import os
import platform
import socket
import struct
import sys

_SYSCALL = {"x86_64": 321, "aarch64": 280}.get(platform.machine())
_PROG_DETACH, _PROG_GET_FD_BY_ID, _OBJ_GET_INFO_BY_FD, _PROG_QUERY = 9, 13, 15, 16  # enum bpf_cmd
_LINK_GET_FD_BY_ID, _LINK_DETACH = 30, 34
_PLACES = {"ingress": 46, "egress": 47}  # BPF_TCX_INGRESS, BPF_TCX_EGRESS
_MOST = 64  # programs in one place


def _call(command, attributes):
    """bpf(2) with a union bpf_attr of these bytes, which are changed: the answer."""
    if _SYSCALL is None:
        raise OSError(f"bpf(2) has no known number on {platform.machine()}")
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(_SYSCALL, command, attributes, len(attributes))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _fd_of(command, number):
    return _call(command, ctypes.create_string_buffer(struct.pack("=III", number, 0, 0), 12))


def _query(index, place):
    """[(program's id, link's id or 0)] in their order."""
    programs, links = (ctypes.c_uint32 * _MOST)(), (ctypes.c_uint32 * _MOST)()
    attributes = ctypes.create_string_buffer(struct.pack(
        "=IIIIQIIQQQQ", index, place, 0, 0, ctypes.addressof(programs), _MOST, 0, 0, ctypes.addressof(links), 0, 0), 64)
    try:
        _call(_PROG_QUERY, attributes)
    except OSError:
        return []  # a kernel without tcx has none; a device may have gone
    count = struct.unpack_from("=I", attributes, 24)[0]
    return list(zip(programs, links))[:count]


def _words(program):
    """Name and tag of a program; the tag is that of its instructions."""
    try:
        fd = _fd_of(_PROG_GET_FD_BY_ID, program)
    except OSError:
        return "gone"
    try:
        info = ctypes.create_string_buffer(128)  # struct bpf_prog_info
        _call(_OBJ_GET_INFO_BY_FD, ctypes.create_string_buffer(struct.pack("=IIQ", fd, 128, ctypes.addressof(info)), 16))
        return f"{info.raw[64:80].rstrip(bytes(1)).decode(errors='replace')} tag {info.raw[8:16].hex()}"
    finally:
        os.close(fd)


def programs():
    """(device, place, words) of every program in the caller's network namespace."""
    return [(device, place, _words(program)) for index, device in socket.if_nameindex() for place, number in _PLACES.items()
            for program, _ in _query(index, number)]


def detach(device, place):
    """Takes the first program of a place away, whether a link holds it or not."""
    index = socket.if_nametoindex(device)
    program, link = _query(index, _PLACES[place])[0]
    fd = _fd_of(_LINK_GET_FD_BY_ID, link) if link else _fd_of(_PROG_GET_FD_BY_ID, program)
    try:
        if link:
            _call(_LINK_DETACH, ctypes.create_string_buffer(struct.pack("=I", fd), 4))
        else:
            _call(_PROG_DETACH, ctypes.create_string_buffer(struct.pack("=IIIIIIQ", index, fd, _PLACES[place], 0, 0, 0, 0), 32))
    finally:
        os.close(fd)


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] != "detach" or sys.argv[3] not in _PLACES:
        sys.exit(__doc__)
    detach(*sys.argv[2:])
