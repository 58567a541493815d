"""The last step before unvetted code runs: take limits on, give up rights, become the program.

Run as the text of ``python -c`` behind the wall, where this file is not to be seen; it therefore
needs the standard library alone. Its arguments are the terms, as JSON, and a command.
"""

import ctypes
import json
import os
import resource
import sys

CLONE_NEWUSER = 0x10000000
PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 4, 24, 38
libc = ctypes.CDLL(None, use_errno=True)


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
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "rights cannot be given up")


def stay_behind() -> None:
    """Let a child go on, and stay as the first process, with whose end all others end.

    Who started this room can stop it by stopping this process; the child cannot leave it.
    """
    child = os.fork()
    while child:
        ended, status = os.wait()
        if ended == child:
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


terms, *command = sys.argv[1:]
terms = json.loads(terms)
if terms["privileged"]:
    stay_behind()
    if terms["user"] is not None:
        become(terms["user"])
    give_up_rights()
for name, most in terms["limits"].items():
    resource.setrlimit(getattr(resource, name), (most, most))
os.execv(command[0], command)
