"""The last step before unvetted code runs: take limits on, give up rights, become the program.

Run as the text of ``python -c`` behind the wall, where this file is not to be seen; it therefore
needs the standard library alone. Its arguments are the terms, as JSON, and a command.
"""

import ctypes
import json
import os
import platform
import resource
import struct
import sys

CLONE_NEWUSER = 0x10000000
PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 4, 22, 24, 38
libc = ctypes.CDLL(None, use_errno=True)

#: A processor's own number, and the system calls that are refused, by their numbers on it.
REFUSED = {
    "x86_64": (
        0xC000003E,
        # Memory that belongs to no process and no folder, so that nothing counts it:
        # shmget, semget, msgget, mq_open, memfd_create, memfd_secret.
        *(29, 64, 68, 240, 319, 447),
        # What namespaces do not keep apart: socket (of virtual machines), add_key, request_key,
        # keyctl, bpf, perf_event_open.
        *(41, 248, 249, 250, 321, 298),
        # Ways round this list: ptrace, process_vm_writev, io_uring_setup.
        *(101, 311, 425),
    ),
    "aarch64": (
        0xC00000B7,
        *(194, 190, 186, 180, 279, 447),
        *(198, 217, 218, 219, 280, 241),
        *(117, 271, 425),
    ),
}


def become(user: int) -> None:
    """Go on as a user that owns nothing, in a user namespace of its own."""
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
    libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # else its files in /proc stay the administrator's
    if libc.unshare(CLONE_NEWUSER):
        raise OSError(ctypes.get_errno(), "no user namespace can be made")
    for file, line in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1")):
        with open(f"/proc/self/{file}", "w") as settings:
            settings.write(line)


def give_up_rights() -> None:
    """Let no program that this one starts have rights of the administrator, nor seek them."""
    with open("/proc/sys/user/max_user_namespaces", "w") as settings:
        settings.write("0")  # of this user namespace, in which a further one would give rights
    for capability in range(64):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)  # those that there are


def refuse_calls() -> None:
    """Let no program call the system for what is `REFUSED`; it is told that it may not."""
    processor, *calls = REFUSED[platform.machine()]
    load, equal, at_least, result = 0x20, 0x15, 0x35, 0x06  # of the kernel's filter language
    foreign = 0x40000000  # from here on the calls have a second numbering
    jumps = [(at_least, foreign), *((equal, call) for call in calls)]
    steps = [(load, 0, 0, 4), (equal, 0, len(jumps) + 1, processor), (load, 0, 0, 0)]
    steps += [(code, len(jumps) - i, 0, call) for i, (code, call) in enumerate(jumps)]
    steps += [(result, 0, 0, 0x7FFF0000), (result, 0, 0, 0x00050001)]  # allowed; EPERM
    text = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = struct.pack("HP", len(steps), ctypes.addressof(text))
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, 2, program, 0, 0):
        raise OSError(ctypes.get_errno(), "calls of the system cannot be refused")


def stay_behind() -> None:
    """Let a child go on, and stay as the first process, with whose end all others end.

    Who started this room can stop it by stopping this process; the child cannot leave it, nor
    write into this process's memory and have it do what it may not do itself.
    """
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    child = os.fork()
    while child:
        ended, status = os.wait()
        if ended == child:
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


terms, *command = sys.argv[1:]
terms = json.loads(terms)
stay_behind()
if terms["privileged"]:
    if terms["user"] is not None:
        become(terms["user"])
    give_up_rights()
for name, most in terms["limits"].items():
    resource.setrlimit(getattr(resource, name), (most, most))
refuse_calls()
os.execv(command[0], command)
