#!/usr/bin/env python3
"""Many small files, and the floors: what the kernel alone takes for the same work.

    scale.py files --files 100000 --scratch DIR     first and unchanged snapshot, verify and restore of a made tree
    scale.py floors --corpus DIR --scratch DIR      walk floor, and create-and-write floor, of a corpus

Prints Markdown rows: medians over --rounds. The tree has a hundred files a directory, each one distinct line. Needs the programs
`floors` (cargo build --release --locked --workspace --example floors) and `backupd`.
"""
import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys

import corpora
import measure
from compare import FOREIGN, ROOT
from tools import TOOLS


def floors(a, *words):
    program = a.bin / "examples" / "floors"
    if not program.exists():
        sys.exit("floors is not built: cargo build --release --locked --workspace --example floors")
    return json.loads(subprocess.run([program, *map(str, words)], check=True, capture_output=True, text=True).stdout)


def medians(rows):
    return {k: statistics.median(r[k] for r in rows) for k in rows[0]}


class Repository:
    """One tool's repository in the scratch folder."""

    def __init__(self, a, tool, live):
        self.tool, self.live, self.dir = tool, live, a.scratch / tool.name
        shutil.rmtree(self.dir, ignore_errors=True)
        (self.dir / "work").mkdir(parents=True)

    def run(self, what, tag="", cwd=None):
        fields = {"repo": self.dir / "repo", "work": self.dir / "work", "live": self.live, "tag": tag}
        env = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
        env |= {k: measure.fill(v, fields) for k, v in self.tool.env.items()}
        os.sync()
        m = measure.measure(measure.fill(getattr(self.tool, what), fields), cwd or self.dir, env)
        if m["code"]:
            sys.exit(f"{self.tool.name} {what}: exit {m['code']}: {m['said'][-500:]}")
        del m["said"]
        return m


def many_files(a):
    live = a.scratch / "tree"
    shutil.rmtree(live, ignore_errors=True)
    live.mkdir(parents=True)
    made = floors(a, "tree", live, a.files)
    print(f"{a.files} files, made in {made['seconds']:.1f} s; load {os.getloadavg()[0]:.1f}\n", flush=True)
    print("| tool | step | wall s | cpu s | peak MB |\n|---|---|---|---|---|")
    for name in a.tools.split(","):
        repository = Repository(a, TOOLS[name], live)
        repository.run("init")
        first = repository.run("backup", "first", live)
        row(name, "first", first)
        row(name, "unchanged", medians([repository.run("backup", f"u{n}", live) for n in range(a.rounds)]))
        row(name, "verify", repository.run("check", "first"))
        if a.restore:
            disk = measure.FreshDisk(repository.dir / "restored", a.files << 12)
            row(name, "restore", repository.run("restore", f"u{a.rounds - 1}", disk.tree))
            count = sum(len(f) for _, _, f in os.walk(disk.tree))
            disk.drop()
            if count != a.files:
                sys.exit(f"{name} restored {count} files of {a.files}")
        shutil.rmtree(repository.dir)
        if a.peak_mb and first["rss"] > a.peak_mb * 1e6:
            sys.exit(f"{name}'s first backup took {first['rss'] / 1e6:.0f} MB, more than {a.peak_mb:g}")
    row("floor", "walk", floor(a, lambda: floors(a, "walk", live)))
    if a.restore:
        row("floor", "create and write", floor(a, lambda: create(a, live)))
    shutil.rmtree(live)


def create(a, live):
    disk = measure.FreshDisk(a.scratch / "created", measure.disk(live)[0])
    os.sync()
    made = floors(a, "create", live, disk.tree)
    disk.drop()
    return made


def floor(a, once):
    got = medians([once() for _ in range(a.rounds)])
    return {"wall": got["seconds"], "cpu": got["cpu_seconds"]}


def row(who, step, m):
    rss = f"{m['rss'] / 1e6:.0f}" if "rss" in m else "-"
    print(f"| {who} | {step} | {m['wall']:.3f} | {m['cpu']:.3f} | {rss} |", flush=True)


def corpus_floors(a):
    if not a.corpus:
        sys.exit("--corpus is missing: a folder made by corpora.py")
    corpora.switch(a.corpus, 1)
    a.scratch.mkdir(parents=True, exist_ok=True)
    print("| floor | step | wall s | cpu s | peak MB |\n|---|---|---|---|---|")
    row("floor", "walk", floor(a, lambda: floors(a, "walk", a.corpus / "live")))
    row("floor", "create and write", floor(a, lambda: create(a, a.corpus / "live")))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["files", "floors"])
    p.add_argument("--files", type=int, default=100_000)
    p.add_argument("--corpus", type=lambda x: pathlib.Path(x).absolute())
    p.add_argument("--scratch", type=lambda x: pathlib.Path(x).absolute(), required=True)
    p.add_argument("--tools", default="backupd")
    p.add_argument("--peers", type=pathlib.Path, default=os.environ.get("PEERS"))
    p.add_argument("--bin", type=pathlib.Path, default=pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--peak-mb", type=float, default=0, help="with files: fail when a first backup takes more memory")
    p.add_argument("--restore", action="store_true", help="with files: restore the tree too")
    a = p.parse_args()
    a.bin = a.bin.absolute()
    paths = [str(a.bin)] + ([str(pathlib.Path(a.peers).absolute() / "bin")] if a.peers else [])
    os.environ["PATH"] = ":".join([*paths, os.environ["PATH"]])
    many_files(a) if a.what == "files" else corpus_floors(a)


if __name__ == "__main__":
    main()
