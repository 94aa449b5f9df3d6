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


# ---------------------------------------------------------------- where trees are restored to

class FreshDisk:
    """An empty folder to restore into: on a new ext4 of its own, in a file, where that can be mounted.

    For some minutes after many files were deleted, ext4 takes time that grows with the square of their number to create
    files nearby (it will not reuse their inodes yet). Without a file system of its own, each restore would pay for the deletion of the
    tree restored before it: 18 CPU seconds in place of 0.7 for 27,000 files on the machine of README.md.
    """

    def __init__(self, folder, content_bytes):
        self.mount, self.image = folder, folder.with_suffix(".img")
        self.tree = folder / "tree"
        self.drop()
        folder.mkdir(parents=True)
        self.fresh = os.geteuid() == 0 and self.mounted(int(content_bytes * 1.5) + (2 << 30))
        self.tree.mkdir()

    def mounted(self, size):
        with open(self.image, "wb") as f:
            f.truncate(size)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        made = subprocess.run(["mkfs.ext4", "-q", "-N", str(max(size >> 12, 1 << 16)), "-E", "lazy_itable_init=1,nodiscard",
                               str(self.image)], **quiet).returncode == 0
        if made and subprocess.run(["mount", "-o", "loop", str(self.image), str(self.mount)], **quiet).returncode == 0:
            return True
        self.image.unlink()
        print("note: no file system of its own for the restored tree; deletions of the last minutes disturb it", flush=True)
        return False

    def drop(self):
        if self.mount.is_mount():
            subprocess.run(["umount", str(self.mount)], check=True)
        self.image.unlink(missing_ok=True)
        shutil.rmtree(self.mount, ignore_errors=True)


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
