"""Programs that the tests need and pip does not install; `python -m tests.tools` prints Debian's packages for them."""

import os
import shutil

SEARCHED = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin"  # where Debian has nginx
PACKAGES = {
    "redis-server": "redis-server",
    "nginx": "nginx",
    "openssl": "openssl",
    "curl": "curl",
    "systemd-analyze": "systemd",
    "chromium": "chromium",
    "chromedriver": "chromium-driver",
}


def which(program: str) -> str | None:
    """The path of the program, if this machine has it."""
    return shutil.which(program, path=SEARCHED)


def missing() -> list[str]:
    """The programs that this machine lacks."""
    return [program for program in PACKAGES if not which(program)]


def advice() -> str:
    """What is missing and what to type; empty where nothing is."""
    programs = missing()
    packages = " ".join(PACKAGES[program] for program in programs)
    said = f"tests are left out that need {', '.join(programs)}; on Debian or Ubuntu: sudo apt-get install {packages}"
    return said if programs else ""


if __name__ == "__main__":
    print(*(PACKAGES[program] for program in missing()))
