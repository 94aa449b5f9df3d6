"""S3 servers on loopback: start(name, folder) gives a Server; link() puts a slow link before it."""
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import measure

KEY, SECRET, BUCKET = "bench0000000000000key", "bench-secret-0000000000000000000000000000", "bench"
ALL_RIGHTS = f'[[key]]\naccess_key = "{KEY}"\nsecret_key = "{SECRET}"\nmay = ["read", "create", "overwrite", "delete"]\n'


class Server:
    """A running server. `data` is its folder, None when it keeps objects in memory."""

    def __init__(self, argv, port, log, data=None):
        self.port, self.data, self.slow, self.argv, self.log = port, data, None, argv, log
        self.again()
        self.fields = {"endpoint": f"http://127.0.0.1:{port}", "bucket": BUCKET, "key": KEY, "secret": SECRET}

    def again(self):
        """Starts it, the first time and after stop(): its folder is what it was."""
        with open(self.log, "a") as out:
            self.process = subprocess.Popen(self.argv, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        wait_for(self.port)

    def cpu(self):
        return measure.cpu_of(self.process.pid)

    def size(self, prefix):
        return measure.disk(self.data / BUCKET / prefix) if self.data else (None, None)

    def link(self, delay_ms, mb_per_s):
        """From now on clients come through a slow link."""
        argv = [sys.executable, pathlib.Path(__file__).with_name("slow_link.py"), "--to", str(self.port),
                "--delay-ms", str(delay_ms), "--mb-per-s", str(mb_per_s)]
        self.slow = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True)
        self.fields["endpoint"] = f"http://127.0.0.1:{int(self.slow.stdout.readline())}"

    def carried(self):
        """Bytes that the slow link has carried down so far."""
        if not self.slow:
            return 0
        self.slow.send_signal(signal.SIGUSR1)
        return int(self.slow.stdout.readline().split()[1])

    def stop(self):
        for process in (self.slow, self.process):
            if process:
                process.terminate()
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(port, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 0.5).close()
            return
        except OSError:
            time.sleep(0.1)
    sys.exit("the S3 server did not answer")


def program(name):
    return shutil.which(name) or sys.exit(f"{name} is not in PATH: see README.md, Peers")


def s3_server(folder):
    """Ours (deploy/s3): objects as files, signatures checked, every answer to a PUT after the bytes are on disk."""
    port, keys = free_port(), folder / "keys.toml"
    keys.write_text(ALL_RIGHTS)
    keys.chmod(0o600)
    argv = [program("s3-server"), "--listen", f"127.0.0.1:{port}", "--root", str(folder / "data"),
            "--access-key-file", str(keys), "--bucket", BUCKET]
    return Server(argv, port, folder / "log", folder / "data")


def s3s_fs(folder):
    """s3s-fs as its authors ship it: objects as files, signatures checked, nothing flushed."""
    port, data = free_port(), folder / "data"
    (data / BUCKET).mkdir(parents=True)
    argv = [program("s3s-fs"), "--host", "127.0.0.1", "--port", str(port), "--access-key", KEY, "--secret-key", SECRET,
            str(data)]
    return Server(argv, port, folder / "log", data)


def moto(folder):
    """Objects in memory, no signature checked: shows the protocol, says nothing about speed."""
    port = free_port()
    server = Server([program("moto_server"), "-H", "127.0.0.1", "-p", str(port)], port, folder / "log")
    urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/{BUCKET}", method="PUT"))
    return server


SERVERS = {"s3-server": s3_server, "s3s-fs": s3s_fs, "moto": moto}


def start(name, folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return SERVERS[name](folder)
