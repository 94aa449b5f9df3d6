"""Runs one command and says what it took; compares and sizes trees. Used by compare.py and scale.py."""
import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile
import threading
import time

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
SAMPLE_SECONDS = 0.02


def fill(text, fields):
    for name, value in fields.items():
        text = text.replace("{" + name + "}", str(value))
    return text


def family(pid):
    """pid and all processes below it."""
    out, todo = [], [pid]
    while todo:
        p = todo.pop()
        out.append(p)
        try:
            for t in os.listdir(f"/proc/{p}/task"):
                todo += map(int, pathlib.Path(f"/proc/{p}/task/{t}/children").read_text().split())
        except OSError:
            pass
    return out


def resident(pid):
    total = 0
    for p in family(pid):
        try:
            total += int(pathlib.Path(f"/proc/{p}/statm").read_text().split()[1]) * PAGE
        except (OSError, IndexError):
            pass
    return total


def cpu_of(pid):
    """CPU seconds so far of a server and its children."""
    total = 0
    for p in family(pid):
        try:
            f = pathlib.Path(f"/proc/{p}/stat").read_text().rsplit(")", 1)[1].split()
            total += int(f[11]) + int(f[12])
        except (OSError, IndexError):
            pass
    return total / TICK


def measure(line, cwd, env, limit=3600):
    """Runs one bash line: wall and CPU seconds, peak memory in bytes, exit code, the end of what it said.

    GNU time stands between, because a child of ours would inherit our own peak memory. Several processes at once are
    summed by sampling; the larger of both figures counts.
    """
    if not shutil.which("time"):
        raise SystemExit("GNU time is missing: apt-get install time")
    with tempfile.NamedTemporaryFile("r") as figures, tempfile.TemporaryFile("w+", errors="replace") as said:
        cmd = [shutil.which("time"), "-q", "-o", figures.name, "-f", "%U %S %M", "bash", "-o", "pipefail", "-c", line]
        start = time.monotonic()
        p = subprocess.Popen(cmd, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                             start_new_session=True)
        peak, done = [0], threading.Event()

        def watch():
            while not done.wait(SAMPLE_SECONDS):
                peak[0] = max(peak[0], resident(p.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        killer = threading.Timer(limit, lambda: os.killpg(p.pid, 9))
        killer.start()
        try:
            code = p.wait()
            wall = time.monotonic() - start
        except BaseException:                        # we are being stopped: take the tool along
            os.killpg(p.pid, 9)
            raise
        finally:
            killer.cancel()
            done.set()
            watcher.join()
        numbers = figures.read().split()[-3:]
        user, system, kb = map(float, numbers) if len(numbers) == 3 else (0.0, 0.0, 0.0)
        said.seek(0)
        return {"wall": wall, "cpu": user + system, "rss": max(peak[0], int(kb) * 1024), "code": code,
                "said": said.read()[-2000:]}


# ---------------------------------------------------------------- trees

def disk(path):
    """Disk blocks taken, in bytes, and files."""
    size = n = 0
    for d, _, files in os.walk(path):
        for f in files:
            try:
                size += os.lstat(os.path.join(d, f)).st_blocks * 512
                n += 1
            except OSError:                          # a server's temporary file that has gone
                pass
    return size, n


def digest(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def manifest(root):
    """{relative name: (kind, content, mode, owner, mtime)}"""
    out = {}
    for d, dirs, files in os.walk(root):
        for n in dirs + files:
            p = os.path.join(d, n)
            s = os.lstat(p)
            if os.path.islink(p):
                what = ("link", os.readlink(p))
            elif os.path.isdir(p):
                what = ("dir", "")
            else:
                what = ("file", digest(p))
            out[os.path.relpath(p, root)] = what + (s.st_mode, f"{s.st_uid}:{s.st_gid}", s.st_mtime_ns)
    return out


def compare(want, root):
    """What differs in content, '' if nothing does; and counts of differing metadata."""
    got = manifest(root)
    bad = [f"missing {n}" for n in want if n not in got] + [f"extra {n}" for n in got if n not in want]
    both = [n for n in want if n in got]
    bad += [f"differs {n}" for n in both if want[n][:2] != got[n][:2]]
    files = [n for n in both if want[n][0] == "file"]
    meta = {k: sum(want[n][i] != got[n][i] for n in files) for k, i in (("mode", 2), ("owner", 3))}
    meta["mtime"] = sum(abs(want[n][4] - got[n][4]) > 1000 for n in files)
    meta["dir-mtime"] = sum(abs(want[n][4] - got[n][4]) > 1000 for n in both if want[n][0] == "dir")
    more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
    return "; ".join(bad[:3]) + more, {k: v for k, v in meta.items() if v}
