"""What happens to messages when the store goes away under load."""

import subprocess
import threading
import time

from sandbox.messages import text_message
from sandbox.platform import signed_query
from sandbox.testing import APPID, SECRET
from tests.conftest import TOKEN, free_port, program, wait_for_port
from tests.test_wxserver import exchange

THREADS, MESSAGES = 8, 40


def test_a_redis_that_is_killed_under_load_costs_no_answer(serve, cloud, tmp_path):
    port = free_port()
    command = [program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    redis_server = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    wait_for_port(port)
    account = {"WECHAT_ACCOUNT": "miniprogram", "WECHAT_APPID": APPID, "WECHAT_SECRET": SECRET}
    store = {"WECHAT_STORE": f"redis://127.0.0.1:{port}/0", "WECHAT_API_URL": cloud.url}
    server, statuses = serve(**account, **store), []

    def push(thread):
        for number in range(MESSAGES):
            body = text_message(f"帮助 {thread}.{number}").encode()
            statuses.append(exchange(server.port, "POST", f"/weixin?{signed_query(TOKEN)}", body)[0])
            if len(statuses) == THREADS * MESSAGES // 3:
                redis_server.kill()

    threads = [threading.Thread(target=push, args=(thread,)) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert redis_server.wait(5) < 0
    assert statuses == [200] * THREADS * MESSAGES
    deadline = time.monotonic() + 20
    while len(cloud.sent) < len(statuses) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(cloud.sent) == len(statuses)
