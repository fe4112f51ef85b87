"""Where it was measured."""

import hashlib
import os
import platform
import subprocess
import time


def describe(site):
    return {
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": _system(),
        "kernel": platform.release().partition("-")[0],
        "sync_us": _sync_us(site.work),
        "file_system": _file_system(site.work),
        "source": site.source.version,
        "target": site.target.version,
        "pgbench": _first_line([os.path.join(site.tools, "pgbench"), "--version"]),
        "pgbouncer": site.pgbouncer and _first_line([site.pgbouncer, "--version"]),
        "fsync": site.fsync,
        "commit": _first_line(["git", "-C", site.root, "describe", "--always", "--dirty", "--exclude", "*"]),
        "build": site.build,
    }


def build_of(program):
    """Tells two builds of pgshadow apart."""
    try:
        with open(program, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()[:12]
    except FileNotFoundError:
        return "none"


def _first_line(words):
    done = subprocess.run(words, capture_output=True, text=True)
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else None


def _cpu():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _system():
    try:
        with open("/etc/os-release", encoding="utf-8") as file:
            values = dict(line.rstrip().split("=", 1) for line in file if "=" in line)
        return values["PRETTY_NAME"].strip('"')
    except (OSError, KeyError):
        return platform.system()


def _file_system(directory):
    best = ("", "unknown")
    with open("/proc/mounts", encoding="utf-8") as file:
        for line in file:
            _, place, kind, *_ = line.split(" ")
            if os.path.commonpath([place, directory]) == place and len(place) >= len(best[0]):
                best = (place, kind)
    return best[1]


def _sync_us(directory):
    """Median of what a small write and its sync to disk take."""
    path = os.path.join(directory, "sync")
    taken = []
    with open(path, "wb", buffering=0) as file:
        file.write(bytes(8192 * 200))
        os.fsync(file.fileno())
        for number in range(200):
            file.seek(number * 8192)
            start = time.perf_counter()
            file.write(bytes(8192))
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - start)
    os.unlink(path)
    return round(sorted(taken)[100] * 1e6)
