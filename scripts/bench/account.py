"""What processes cost: CPU time and memory, read from /proc."""

import os

TICK_US = 1_000_000 // os.sysconf("SC_CLK_TCK")
# Of the fields that follow the command's name in /proc/PID/stat.
PARENT = 1
UTIME, STIME, CUTIME, CSTIME = 11, 12, 13, 14


def _fields(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        return file.read().rpartition(")")[2].split()


def _all_processes():
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                found[int(name)] = _fields(name)
            except (FileNotFoundError, ProcessLookupError):
                pass  # it has just ended
    return found


def tree(pid, processes=None):
    """The process and all that descend from it."""
    processes = processes or _all_processes()
    members, more = [], [pid]
    while more:
        members += more
        more = [child for child, fields in processes.items() if int(fields[PARENT]) in more]
    return [member for member in members if member in processes]


def cpu_us(pid):
    """User and system time of a process tree, of children that ended and were waited for too.

    A child that ends between two looks at it would be missed or counted twice: look until nothing changes hands.
    """
    while True:
        processes = _all_processes()
        members = tree(pid, processes)
        ticks = sum(int(processes[member][field]) for member in members for field in (UTIME, STIME, CUTIME, CSTIME))
        if sorted(members) == sorted(tree(pid)):
            return ticks * TICK_US


def peak_memory_kib(pid):
    """The most memory that the process itself ever held."""
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0


def busy_us():
    """CPU time of the whole machine, without what a hypervisor took for others."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _idle, _iowait, irq, softirq, *_ = (int(word) for word in file.readline().split()[1:])
    return (user + nice + system + irq + softirq) * TICK_US


def steal_us():
    """CPU time that a hypervisor took for others."""
    with open("/proc/stat", encoding="ascii") as file:
        return int(file.readline().split()[8]) * TICK_US


def own_us():
    """CPU time of this script and of the children that it waited for."""
    times = os.times()
    return int(sum(times[:4]) * 1_000_000)
