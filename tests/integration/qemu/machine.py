"""A virtual machine with a pure cgroup v2, for the conformance suite.

Needs the Debian packages `PACKAGES` and, once, the network: the kernel is fetched with
``apt-get download`` through the machine's own configuration.  Kernel and base image are kept in
``~/.cache/skerry-test`` (or `SKERRY_TEST_CACHE`), named by what they are made of.

``python tests/integration/qemu/machine.py`` builds the kit and runs the suite.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PACKAGES = ("qemu-system-x86", "busybox-static", "cpio", "python3-minimal", "libpython3.11-stdlib")
KERNEL_PACKAGE = "linux-image-cloud-amd64"
PYTHON = Path("/usr/bin/python3.11")
STDLIB = Path("/usr/lib/python3.11")
BUSYBOX = Path("/bin/busybox")
APPLETS = ("sh", "mount", "cat", "ls", "mkdir", "rmdir", "sleep", "poweroff", "echo", "grep", "true", "kill", "touch")
LEFT_OUT = (
    *(
        "test",
        "tests",
        "idlelib",
        "tkinter",
        "lib2to3",
        "pydoc_data",
        "ensurepip",
        "turtle*",
        "__pycache__",
        "config-3*",
    ),
    *("asyncio", "concurrent", "curses", "dbm", "distutils", "email", "html", "http", "msilib", "multiprocessing"),
    *("sqlite3", "venv", "wsgiref", "xml", "xmlrpc", "mailbox.py", "pdb.py", "pydoc.py", "doctest.py"),
)
RECIPE = 5
"""Raise when the base image is made differently."""

INIT = """#!/bin/sh
export PATH=/bin:/sbin:/usr/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp
mount -t cgroup2 none /sys/fs/cgroup
echo "BOOTED $(cat /proc/uptime)"
cd /skerry
export PYTHONPATH=/skerry
/usr/bin/python3.11 -S -s -u tests/container_case.py
/usr/bin/python3.11 -S -s -u tests/conformance.py v2 /tmp --slow 3
echo "ENDED $?"
poweroff -f
"""


def cache() -> Path:
    path = Path(os.environ.get("SKERRY_TEST_CACHE", Path.home() / ".cache" / "skerry-test"))
    path.mkdir(parents=True, exist_ok=True)
    return path


def run(command: list[str], **more: Any) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, **more)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return str(done.stdout)


def kernel() -> Path:
    """The kernel image of the newest Debian cloud kernel; fetched once."""
    kept = sorted(cache().glob("vmlinuz-*"), key=lambda path: path.stat().st_mtime)
    if kept:
        return kept[-1]
    depends = run(["apt-cache", "depends", KERNEL_PACKAGE])
    found = re.search(r"Depends: (linux-image-\S+)", depends)
    if found is None:
        raise RuntimeError(f"apt knows no {KERNEL_PACKAGE}: run apt-get update")
    with tempfile.TemporaryDirectory(dir=cache()) as directory:
        run(["apt-get", "-o", "APT::Sandbox::User=root", "download", found[1]], cwd=directory)
        [package] = Path(directory).glob("*.deb")
        run(["dpkg-deb", "-x", str(package), f"{directory}/tree"])
        [image] = Path(directory, "tree/boot").glob("vmlinuz-*")
        target = cache() / image.name
        image.rename(target)
    return target


def archive(directory: Path, target: Path) -> None:
    """Pack a directory as a gzipped initramfs."""
    names = "\n".join(str(path.relative_to(directory)) for path in sorted(directory.rglob("*")))
    packed = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet"], cwd=directory, input=names.encode(), capture_output=True, check=True
    )
    aside = target.with_suffix(f".{os.getpid()}")
    aside.write_bytes(gzip.compress(packed.stdout, 1))
    aside.rename(target)


def base_image() -> Path:
    """Busybox, Python and its standard library; built once for each version of them."""
    digest = hashlib.sha256(repr((RECIPE, INIT, APPLETS)).encode())
    for file in (PYTHON, BUSYBOX):
        digest.update(file.read_bytes())
    target = cache() / f"base-{digest.hexdigest()[:16]}.cpio.gz"
    if target.exists():
        return target
    with tempfile.TemporaryDirectory(dir=cache()) as directory:
        root = Path(directory)
        for name in ("bin", "sbin", "proc", "sys", "dev", "tmp", "etc", "usr/bin", "usr/lib", "run"):
            (root / name).mkdir(parents=True)
        shutil.copy(BUSYBOX, root / "bin/busybox")
        for applet in APPLETS:
            (root / "bin" / applet).symlink_to("busybox")
        shutil.copy(PYTHON, root / "usr/bin/python3.11")
        shutil.copytree(STDLIB, root / STDLIB.relative_to("/"), ignore=shutil.ignore_patterns(*LEFT_OUT))
        for library in libraries([PYTHON, *sorted((STDLIB / "lib-dynload").glob("*.so"))]):
            place = root / library.relative_to("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, place)
        compile_all(root / STDLIB.relative_to("/"))
        init = root / "init"
        init.write_text(INIT)
        init.chmod(0o755)
        archive(root, target)
    return target


def compile_all(directory: Path) -> None:
    """Compile beforehand: the emulated processor takes seconds for it, at every start."""
    run([str(PYTHON), "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", str(directory)])


def libraries(files: Iterable[Path]) -> list[Path]:
    """Shared libraries that programs need, as the loader names them."""
    listed = run(["ldd", *map(str, files)])
    return sorted({Path(path) for path in re.findall(r"(/\S+) \(0x", listed)})


def overlay(target: Path) -> None:
    """Our own code: the sandboxer and the container's preparation as they are now, and the suite."""
    here = Path(__file__).resolve()
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory, "skerry")
        shutil.copytree(
            here.parents[3] / "agents/sandboxer",
            place / "agents/sandboxer",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        (place / "agents/__init__.py").write_text("")
        shutil.copy(here.parents[3] / "agents/container.py", place / "agents")
        (place / "tests").mkdir()
        for name in ("conformance.py", "container_case.py"):
            shutil.copy(here.with_name(name), place / "tests")
        compile_all(place)
        archive(Path(directory), target)


def boot(deadline_s: float, say: Any = None) -> tuple[dict[str, Any] | None, str]:
    """Boot, run the suite, power off.

    Returns:
        (its summary or None, everything the console said).
    """
    image, initial = kernel(), base_image()
    with tempfile.TemporaryDirectory() as directory:
        code, whole = Path(directory, "code.cpio.gz"), Path(directory, "initrd")
        overlay(code)
        whole.write_bytes(initial.read_bytes() + code.read_bytes())
        command = ["qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"]
        command += ["-m", "1024", "-nographic", "-nodefaults", "-serial", "stdio", "-no-reboot"]
        command += ["-kernel", str(image), "-initrd", str(whole)]
        command += ["-append", "console=ttyS0 quiet panic=-1 loglevel=3"]
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as machine:
            return listen(machine, time.monotonic() + deadline_s, say)


def listen(machine: subprocess.Popen[bytes], deadline: float, say: Any) -> tuple[dict[str, Any] | None, str]:
    import threading

    assert machine.stdout is not None
    timer = threading.Timer(max(0.0, deadline - time.monotonic()), machine.kill)
    timer.start()
    summary: dict[str, Any] | None = None
    said: list[str] = []
    try:
        for raw in machine.stdout:
            line = raw.decode(errors="replace").rstrip()
            said.append(line)
            if say is not None:
                say(line)
            if line.startswith("CONFORMANCE "):
                summary = json.loads(line.removeprefix("CONFORMANCE "))
    finally:
        timer.cancel()
        machine.kill()
        machine.wait()
    return summary, "\n".join(said)


def missing_tools() -> list[str]:
    """Packages to install first."""
    programs = {"qemu-system-x86_64": PACKAGES[0], "cpio": PACKAGES[2]}
    missing = [package for program, package in programs.items() if shutil.which(program) is None]
    missing += [PACKAGES[1]] if not BUSYBOX.exists() else []
    missing += [PACKAGES[3]] if not PYTHON.exists() else []
    return missing + ([PACKAGES[4]] if not (STDLIB / "lib-dynload").is_dir() else [])


if __name__ == "__main__":
    began = time.monotonic()
    result, _ = boot(120, print)
    print(f"{time.monotonic() - began:.1f} s")
    sys.exit(0 if result is not None and not result["failed"] else 1)
