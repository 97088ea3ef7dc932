"""What the server weighs: the time of its import and its resident memory. Exits 1 where a bar is missed."""

import http.client
import statistics
import subprocess
import sys
import time

from served import start
from servers import ROOT, TOKEN

from sandbox.messages import text_message
from sandbox.platform import signed_query

IMPORT_BAR = 0.15  # seconds more than a bare interpreter
REST_BAR = 24  # MB, without an appid and a secret
MEMORY_BAR = 36  # MB after MESSAGES messages
RUNS, MESSAGES, PORT = 15, 10_000, 8941


def seconds(code):
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    return time.perf_counter() - started


def import_time():
    """The median of what `import wxserver` takes beyond `pass`, in seconds."""
    return statistics.median(seconds("import wxserver") - seconds("pass") for _ in range(RUNS))


def megabytes(pid):
    with open(f"/proc/{pid}/status") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def memory():
    """The resident memory of `python wxserver.py`, with the handlers that ship, at the start and after the messages."""
    process = start("ours", PORT)
    try:
        before = megabytes(process.pid)
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=10)
        for number in range(MESSAGES):
            body = text_message("三体", openid=f"o{number:027}").encode()
            connection.request("POST", f"/weixin?{signed_query(TOKEN)}", body)
            response = connection.getresponse()
            assert response.status == 200
            assert "三体" in response.read().decode()
        connection.close()
        return before, megabytes(process.pid)
    finally:
        process.kill()
        process.wait()


def main():
    extra, (before, after) = import_time(), memory()
    print("| what | figure | bar |\n| --- | ---: | ---: |")
    print(f"| `import wxserver`, beyond a bare interpreter | {extra:.3f} s | {IMPORT_BAR} s |")
    print(f"| resident memory at the start | {before:.1f} MB | {REST_BAR} MB |")
    print(f"| resident memory after {MESSAGES:,} messages | {after:.1f} MB | {MEMORY_BAR} MB |")
    return 0 if extra <= IMPORT_BAR and before <= REST_BAR and after <= MEMORY_BAR else 1


if __name__ == "__main__":
    sys.exit(main())
