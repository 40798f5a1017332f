"""The commands as a person runs them: `polyvec serve` and Ctrl-C, `serve run`, `serve deploy`."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from deployments.local import free_ports
from serving.tenants.keys import new_key
from tests.deployments.conftest import free_port
from tests.tenants import bearer, entry, file_of

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
MINI = "all-MiniLM-L6-v2"
START_S = 240  # on a machine that is busy with the other half of the tests


@contextmanager
def running(*words: str, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A command under way, in a session of its own; whatever it leaves behind is ended by pid."""
    process = subprocess.Popen(
        words,
        env={**os.environ, **(env or {})},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        family = descendants(process.pid)
        for one in family:
            if one.is_running():
                one.terminate()
        for one in psutil.wait_procs(family, timeout=20)[1]:
            one.kill()
        process.communicate()


def descendants(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [*parent.children(recursive=True), parent]
    except psutil.NoSuchProcess:
        return []


def wait_until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        try:
            if holds():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.3)
    raise AssertionError(f"not within {START_S} s")


def answers_while(process: subprocess.Popen[str], url: str) -> bool:
    """Whether the address answers; an error with what the process said, where it has ended."""
    assert process.poll() is None, process.stdout and process.stdout.read()
    return httpx.get(url).status_code == 200


def wait_ready(url: str) -> None:
    wait_until(lambda: httpx.get(f"{url}/ready").status_code == 200)


def deployed(dashboard: str) -> tuple[float, str, dict[str, int]]:
    """When the application was last deployed, its status, and how many replicas of each deployment
    take calls, as Serve's own API has it.
    """
    said = httpx.get(f"{dashboard}/api/serve/applications/").json()["applications"]["polyvec"]
    taking = {
        name: sum(one["state"] in ("RUNNING", "UPDATING") for one in deployment["replicas"])
        for name, deployment in said["deployments"].items()
    }
    return said["last_deployed_time_s"], said["status"], taking


def run(words: Sequence[str | Path], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=START_S,
    )


@contextmanager
def environment(port: int) -> Iterator[dict[str, str]]:
    """What `polyvec env` exports, with its folder as Ray's too, where no other left its address."""
    said = subprocess.run(
        [BIN / "polyvec", "env", "--port", str(port)], capture_output=True, text=True, check=True
    )
    pairs = (line.removeprefix("export ").split("=", 1) for line in said.stdout.splitlines())
    env = dict(pairs)
    folder = env["RAY_SERVE_HAPROXY_SERVER_STATE_BASE"]
    try:
        yield {**env, "RAY_TMPDIR": folder}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def config_file(folder: Path, name: str, port: int) -> Path:
    text = (ROOT / "deployments" / "configs" / f"{name}.yaml").read_text()
    path = folder / f"{name}.yaml"
    ports = text.replace("port: 8000", f"port: {port}").replace(
        "port: 9000", f"port: {free_port()}"
    )
    path.write_text(ports)
    return path


def ask(url: str, text: str) -> int:
    body = {"model": MINI, "input": text}
    return httpx.post(f"{url}/v1/embeddings", json=body, timeout=60).status_code


def test_serve_says_ready_answers_the_curl_it_prints_and_drains_on_ctrl_c(tmp_path: Path) -> None:
    port = free_port()
    words = (str(BIN / "polyvec"), "serve", "--fused", "--port", str(port))
    with running(*words) as process:
        lines = []
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if line.startswith("docs "):
                break
        assert any(line.startswith("ready in") and MINI in line for line in lines), "".join(lines)
        curl = next(line.removeprefix("try ") for line in lines if line.startswith("try "))
        pasted = subprocess.run(curl, shell=True, capture_output=True, text=True)
        assert '"object":"embedding"' in pasted.stdout
        family = descendants(process.pid)
        body = {"model": MINI, "input": ["word " * 200] * 8}
        with httpx.Client(timeout=60) as client, ThreadPoolExecutor(8) as pool:
            url = f"http://127.0.0.1:{port}/v1/embeddings"
            asked = [pool.submit(client.post, url, json=body) for _ in range(8)]
            wait(asked, return_when=FIRST_COMPLETED)
            process.send_signal(signal.SIGINT)
            rest = process.stdout.read()
            statuses = [one.result().status_code for one in asked]
        assert process.wait(60) == 0, rest
        assert statuses == [200] * 8
        assert "Traceback" not in rest
        assert psutil.wait_procs(family, timeout=10)[1] == []


def test_serve_run_serves_a_shipped_config(tmp_path: Path) -> None:
    port = free_port()
    path = config_file(tmp_path, "local", port)
    run_it = (str(BIN / "serve"), "run", str(path))
    with environment(port) as env, running(*run_it, env={**env, "RAY_ADDRESS": "local"}):
        wait_ready(f"http://127.0.0.1:{port}")
        assert ask(f"http://127.0.0.1:{port}", "a cat") == 200


def test_serve_deploy_serves_and_redeploys_without_losing_a_request(tmp_path: Path) -> None:
    port, dashboard, gcs = free_ports(3)
    url = f"http://127.0.0.1:{port}"
    path = config_file(tmp_path, "cluster", port)
    # Two gateways, a preprocessor and a replica; on loopback, for this is one machine.
    text = path.read_text().replace("0.0.0.0", "127.0.0.1")
    key, tenants = new_key(), tmp_path / "tenants.yaml"
    tenants.write_text(file_of({"acme": {"keys": [entry(key)]}}))
    path.write_text(text.replace("/etc/polyvec/tenants.yaml", str(tenants)))
    start = (str(BIN / "ray"), "start", "--head", "--block", "--num-cpus=16", f"--port={gcs}")
    more = (f"--dashboard-port={dashboard}", "--object-store-memory=104857600")
    with environment(port) as env, running(*start, *more, env=env) as ray:
        api = f"http://127.0.0.1:{dashboard}"
        deploy = [BIN / "serve", "deploy", "-a", api, path]
        env["RAY_ADDRESS"] = f"127.0.0.1:{gcs}"
        wait_until(lambda: answers_while(ray, f"{api}/api/serve/applications/"))
        assert run(deploy, env).returncode == 0
        wait_ready(url)
        answers: list[tuple[int, str]] = []
        least: dict[str, int] = {}
        stop = threading.Event()

        def redeployed(before: float) -> bool:
            at, status, taking = deployed(api)
            least.update({name: min(least.get(name, n), n) for name, n in taking.items()})
            return at > before and status == "RUNNING"

        def load() -> None:
            with httpx.Client(timeout=60, headers={"authorization": bearer(key)}) as client:
                while not stop.wait(0.05):  # what starts meanwhile needs a processor too
                    body = {"model": MINI, "input": "a cat"}
                    answer = client.post(f"{url}/v1/embeddings", json=body)
                    answers.append((answer.status_code, "" if answer.is_success else answer.text))

        workers = [threading.Thread(target=load) for _ in range(4)]
        for worker in workers:
            worker.start()
        try:
            path.write_text(path.read_text().replace("flights: 2", "flights: 3"))
            before, _, _ = deployed(api)
            assert run(deploy, env).returncode == 0
            wait_until(lambda: redeployed(before))
        finally:
            stop.set()
            for worker in workers:
                worker.join()
    assert len(answers) > 50 and set(answers) == {(200, "")}
    assert least == {"Gateway": 2, "Preprocessor": 1, f"Replica:{MINI}": 1}
