#!/usr/bin/env python3
"""Runs backupd and its peers over one corpus, in one run, and prints a table with the ratios to the aims.

    compare.py --corpus DIR --scratch DIR [--tools backupd,restic] [--rounds 3] [--json FILE]

Every restored tree is compared file by file with the source. Python 3.11, standard library only; see README.md.
"""
import argparse
import json
import os
import pathlib
import platform
import shutil
import signal
import subprocess
import sys
import time

import corpora
import measure
import servers
import table
from tools import TOOLS

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Each step: name, what runs, the snapshot's name, which day is live.
STEPS = [("init", "init", "", 1), ("first", "backup", "day1", 1), ("unchanged", "backup", "day1b", 1),
         ("day2", "backup", "day2", 2), ("restore", "restore", "day2", 2), ("check", "check", "day2", 2)]
FOREIGN = ("RESTIC_", "RUSTIC_", "BORG_", "BUPSTASH_", "BACKUPD_", "AWS_")


class Run:
    """One tool in one round."""

    want = None                                      # day 2's tree, hashed once for all tools

    def __init__(self, tool, number, a, server):
        self.tool, self.a, self.server = (tool.on_s3() if server else tool), a, server
        self.dir = a.scratch / tool.name
        self.live = a.corpus / "live"
        # On S3, a new one for each round, and short: our server keeps an object's name in a file's name.
        self.prefix = f"{number}-{tool.name[:4]}"
        self.got, self.meta, self.failed = {}, {}, ""

    def fresh(self):
        self.drop()
        (self.dir / "work").mkdir(parents=True)

    def drop(self):
        if (self.dir / "restored").is_mount():       # left by a run that was killed
            subprocess.run(["umount", str(self.dir / "restored")], check=True)
        shutil.rmtree(self.dir, ignore_errors=True)

    def fields(self, tag):
        f = {"repo": self.dir / "repo", "work": self.dir / "work", "live": self.live, "tag": tag}
        return {**f, "repo": self.prefix, **self.server.fields} if self.server else f

    def environment(self, fields):
        clean = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
        own = {k: measure.fill(v, fields) for k, v in self.tool.env.items()}
        return {k: v for k, v in {**clean, **own}.items() if v != ""}

    def step(self, name, what, tag, day):
        line = getattr(self.tool, what)
        if not line or self.failed:
            return
        fields = self.fields(tag)
        disk = measure.FreshDisk(self.dir / "restored", self.a.bytes) if what == "restore" else None
        cwd = disk.tree if disk else self.live if what == "backup" else self.dir
        quiet(self.a)
        before = (self.server.cpu(), self.server.carried()) if self.server else (0, 0)
        m = measure.measure(measure.fill(line, fields), cwd, self.environment(fields), self.a.limit)
        if self.a.sync and not self.server:
            t = time.monotonic()
            subprocess.run(["sync", "-f", str(self.dir)], check=True)
            m["wall"] += time.monotonic() - t
        if self.server:
            m["server_cpu"], m["down"] = self.server.cpu() - before[0], self.server.carried() - before[1]
        said = m.pop("said")
        if m["code"]:
            self.failed = f"{name}: exit {m['code']}: " + " ".join(said.split())[-300:]
        elif what == "backup":
            m["size"], m["files"] = self.server.size(self.prefix) if self.server else measure.disk(self.dir / "repo")
        elif what == "restore":
            self.compare_restored(disk.tree)
        if disk:
            disk.drop()
        self.got[name] = m
        self.say(name, m)

    def compare_restored(self, tree):
        Run.want = Run.want or measure.manifest(self.live)
        bad, self.meta = measure.compare(Run.want, tree)
        self.failed = f"restore: {bad}" if bad else ""

    def say(self, name, m):
        size = f"  repo {m['size'] / 1e6:8.1f} MB" if m.get("size") is not None else ""
        print(f"  {self.tool.name:10} {name:10} {m['wall']:8.2f} s  cpu {m['cpu']:8.2f}  rss {m['rss'] / 1e6:7.0f} MB{size}"
              + (f"  FAILED {self.failed}" if self.failed else ""), flush=True)


def quiet(a):
    """What came before must not be flushed on this step's time."""
    os.sync()
    if a.cold:
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")


def one_round(number, a, picked, server):
    """All steps of all tools, each round beginning with another tool."""
    print(f"round {number + 1} of {a.rounds}, load {os.getloadavg()[0]:.1f}", flush=True)
    k = number % len(picked)
    runs = [Run(t, number, a, server) for t in picked[k:] + picked[:k]]
    for x in runs:
        x.fresh()
    order = [(s, x) for s in STEPS for x in runs] if a.interleave == "step" else [(s, x) for x in runs for s in STEPS]
    for step, x in order:
        corpora.switch(a.corpus, step[3])
        x.step(*step)
        if step is STEPS[-1]:
            x.drop()
            if server and server.data:
                shutil.rmtree(server.data / servers.BUCKET / x.prefix, ignore_errors=True)
    return runs


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--corpus", type=pathlib.Path, required=True, help="made by corpora.py")
    p.add_argument("--scratch", type=pathlib.Path, required=True, help="repositories and restored trees; a folder of its own")
    p.add_argument("--tools", default="", help=f"of {','.join(TOOLS)}; all that are installed when empty")
    p.add_argument("--peers", type=pathlib.Path, default=os.environ.get("PEERS"), help="folder made by tests/bench/peers ($PEERS)")
    p.add_argument("--bin", type=pathlib.Path, default=pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release",
                   help="folder of the release programs")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--interleave", choices=["step", "tool"], default="tool",
                   help="step: each step over all tools in turn (all repositories on disk at once); tool: a tool's steps together")
    p.add_argument("--cold", action="store_true", help="drop the page cache before each step (root; disturbs the whole machine)")
    p.add_argument("--sync", action="store_true", help="count a flush of the whole file system into each local step")
    p.add_argument("--s3", choices=servers.SERVERS, help="against this server on loopback, not a local folder")
    p.add_argument("--delay-ms", type=float, default=0, help="with --s3: added to every request")
    p.add_argument("--mb-per-s", type=float, default=0, help="with --s3: bandwidth in each direction")
    p.add_argument("--limit", type=float, default=3600, help="seconds for one step")
    p.add_argument("--json", type=pathlib.Path, help="keep every figure of every round here")
    a = p.parse_args()
    a.corpus, a.scratch = a.corpus.absolute(), a.scratch.absolute()
    return a


def pick(a):
    paths = [str(a.bin.absolute())] + ([str(a.peers.absolute() / "bin")] if a.peers else [])
    os.environ["PATH"] = ":".join([*paths, os.environ["PATH"]])
    os.environ["LC_ALL"] = "C.UTF-8"
    if a.tools:
        if unknown := [n for n in a.tools.split(",") if n not in TOOLS]:
            sys.exit(f"--tools: no such tool: {', '.join(unknown)}")
        picked = [TOOLS[n] for n in a.tools.split(",")]
    else:
        picked = [t for t in TOOLS.values() if shutil.which(t.version.split()[0])]
    return [t for t in picked if t.s3 or not a.s3] or sys.exit("none of the tools is installed, or none speaks S3")


def main():
    a = arguments()
    picked, info = pick(a), corpora.load(a.corpus)
    a.bytes = total = sum(info["bytes"].values())
    a.scratch.mkdir(parents=True, exist_ok=True)
    need = total * (1.5 * len(picked) + 1 if a.interleave == "step" else 4.2)
    if shutil.disk_usage(a.scratch).free < need:
        sys.exit(f"needs about {need / 1e9:.0f} GB free in the scratch folder")
    server = servers.start(a.s3, a.scratch / "s3") if a.s3 else None
    if server and (a.delay_ms or a.mb_per_s):
        server.link(a.delay_ms, a.mb_per_s)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    loads, rounds, last = [], [], {}
    try:
        for number in range(a.rounds):
            loads.append(os.getloadavg()[0])
            runs = one_round(number, a, picked, server)
            rounds.append({x.tool.name: x.got for x in runs})
            for x in runs:
                last[x.tool.name] = {"failed": x.failed or last.get(x.tool.name, {}).get("failed", ""), "meta": x.meta}
    finally:
        corpora.switch(a.corpus, 1)
        if server:
            server.stop()
    versions = {t.name: version(t) for t in picked}
    head = headline(a, info, total, loads)
    text = table.report(picked, rounds, a, list(info["bytes"]))
    print(f"\n{head}\n\n{text}\n")
    for t in picked:
        also = [t.note, f"restored metadata that differs: {last[t.name]['meta']}" if last[t.name]["meta"] else "",
                f"FAILED {last[t.name]['failed']}" if last[t.name]["failed"] else ""]
        print("; ".join([f"- {t.name}: {versions[t.name]}", *filter(None, also)]))
    if a.json:
        a.json.write_text(json.dumps({"head": head, "machine": platform.platform(), "versions": versions, "rounds": rounds,
                                      "last": last, "table": text}, indent=1))
    sys.exit(1 if any(x["failed"] for x in last.values()) else 0)


def version(tool):
    out = subprocess.run(["bash", "-c", tool.version], capture_output=True, text=True).stdout
    return out.strip().split("\n")[0]


def headline(a, info, total, loads):
    parts = ", ".join(f"{k} {v / 1e6:.0f}" for k, v in info["bytes"].items())
    where = f"S3: {a.s3}" + (f", {a.delay_ms:g} ms, {a.mb_per_s:g} MB/s" if a.delay_ms or a.mb_per_s else "") if a.s3 else "local folder"
    return (f"{total / 1e6:.0f} MB in {info['files']} files ({parts} MB); {a.rounds} rounds, medians; "
            f"{'cold' if a.cold else 'warm'} cache; {where}; {os.cpu_count()} cores; {time.strftime('%Y-%m-%d')}; "
            f"load at each round's start {', '.join(f'{x:.1f}' for x in loads)}")


if __name__ == "__main__":
    main()
