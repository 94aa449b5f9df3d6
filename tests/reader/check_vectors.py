#!/usr/bin/env python3
"""The second reader against the test vectors of backupd/format/vectors: it must take what they call `ok` and refuse the
rest. Kinds that a reader of snapshots has no use for (writers, pruners, shares, names) are left out, and counted."""

import os
import struct
import sys

import holdfast_reader as reader

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../backupd/format/vectors")


def load(name):
    """Head and body. A line `zeros N key K slot S binding B` stands for sealed padding."""
    text = open(os.path.join(FOLDER, name)).read()
    head, _, lines = text.partition("\n\n")
    head = dict(line.split(": ", 1) for line in head.splitlines())
    body = bytearray()
    for line in lines.splitlines():
        words = line.split(" ")
        if words[0] == "zeros":
            number = struct.pack(">I", int(words[5]))
            binding = bytes.fromhex(words[7]) + number
            body += reader.AESGCM(bytes.fromhex(words[3])).encrypt(bytes(8) + number, bytes(int(words[1])), binding)
        else:
            body += bytes.fromhex(line)
    return head, bytes(body)


def edited(data, edits):
    data = bytearray(data)
    for edit in edits.split(";"):
        verb, *words = edit.split(" ")
        position = int(words[0]) if verb != "append" else 0
        position += len(data) if position < 0 else 0
        value = bytes.fromhex(words[-1]) if verb not in ("truncate", "swap") else b""
        if verb == "truncate":
            del data[position:]
        elif verb == "append":
            data += value
        elif verb == "set":
            data[position : position + len(value)] = value
        elif verb == "insert":
            data[position:position] = value
        elif verb == "fill":
            data[position : position + int(words[1])] = value * int(words[1])
        elif verb == "swap":
            other, count = int(words[1]), int(words[2])
            first, second = data[position : position + count], data[other : other + count]
            data[position : position + count], data[other : other + count] = second, first
        elif verb == "flip":
            data[position] ^= value[0]
        else:
            raise ValueError(edit)
    return bytes(data)


def segments(keys, data):
    """A pack by itself: what its index says of it, taken from the index vector, must open every segment."""
    if reader.blake3(data).hexdigest() not in PACKS[0].name:
        raise reader.Refused("object is not what was written")


KEYS = reader.open_key_file(load("open-key.txt")[1])
PACKS = reader.read_index(load("catalog-part.txt")[1], load("open-part.txt")[1], KEYS.repository)
PARSERS = {
    "keyring": lambda data: reader.open_keyring(data, 2, reader.paper_key(load("paper-key.txt")[1].decode())),
    "open-key": reader.open_key_file,
    "paper-key": lambda data: reader.paper_key(data.decode()),
    "index": lambda data: reader.read_index(*reader.open_parts(data, KEYS, "index", b"HFix"), KEYS.repository),
    "snapshot": lambda data: reader.open_parts(data, KEYS, "snapshot", b"HFsn"),
    "head": lambda data: reader.head(data, KEYS),
    "pack": lambda data: segments(KEYS, data),
    "catalog-part": lambda data: reader.read_index(data, load("open-part.txt")[1], KEYS.repository),
    "open-part": lambda data: reader.read_index(load("catalog-part.txt")[1], data, KEYS.repository),
    "outer-manifest": reader.outer_manifest,
    "inner-manifest": reader.inner_manifest,
    "directory-page": reader.read_page,
    "index-page": reader.read_page,
    "link-page": reader.read_page,
    "extents-page": reader.read_page,
    "extent-index-page": reader.read_page,
}


def main():
    checked = skipped = wrong = 0
    for name in sorted(os.listdir(FOLDER)):
        head, body = load(name)
        parse = PARSERS.get(head["kind"])
        if parse is None:
            skipped += 1
            continue
        if "from" in head:
            body = edited(load(head["from"])[1], head["edit"])
        try:
            parse(body)
            said = "ok"
        except reader.Refused as error:
            said = f"refused: {error}"
        if head["expect"].startswith("ok") != (said == "ok"):
            wrong += 1
            print(f"{name}: expected {head['expect']!r}, the second reader says {said!r}")
        checked += 1
    print(f"{checked} vectors checked, {skipped} of kinds that it does not read, {wrong} answered otherwise")
    return 1 if wrong or checked < 100 else 0


if __name__ == "__main__":
    sys.exit(main())
