#!/usr/bin/env python3
"""A second reader of Holdfast repositories, written from backupd/format/SPEC.md alone.

It lists and restores snapshots from ONE store folder with one key. It shares no code with the program: where the two
disagree, the specification or one of them is wrong.

    holdfast_reader.py --store DIR --passphrase-file FILE list
    holdfast_reader.py --store DIR --paper-key-file FILE restore latest TARGET
    holdfast_reader.py --store DIR --open-key FILE restore 3f9a2c TARGET
"""

import argparse
import collections
import hashlib
import os
import re
import resource
import stat
import struct
import sys

import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

VERSION, PAGE_VERSION = 0x0100, 1
CLASSES = (1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24)
SEGMENT_PLAIN_MAX, CHUNK_MAX, LEVELS_MAX = 4 << 20, 1 << 20, 16
KEYRING_MAX, HEAD_MAX = 1 << 20, 16 << 10
KNOWN_READ_FEATURES = 0
DATA, TREE = 1, 2
WRAPPED, SLOT_KEY, TAG = 1168, 1216, 16
REPOSITORY_V1 = "holdfast repository v1 2026-11 "
KEYRING_V1 = "holdfast keyring v1 2026-11 "
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class Refused(Exception):
    """Bytes that are not what the specification says, or a key that does not fit."""


# --- bytes -----------------------------------------------------------------------------------------------------------


class Fields:
    """Reads fields front to back; every read is checked."""

    def __init__(self, data, what):
        self.data, self.at, self.what = data, 0, what

    def take(self, n):
        if n < 0 or self.at + n > len(self.data):
            raise Refused(f"{self.what} ends too early")
        self.at += n
        return self.data[self.at - n : self.at]

    def rest(self):
        return self.take(len(self.data) - self.at)

    def number(self, form):
        return struct.unpack("<" + form, self.take(struct.calcsize(form)))[0]

    def varint(self, limit=(1 << 64) - 1):
        value = 0
        for shift in range(0, 70, 7):
            byte = self.number("B")
            value |= (byte & 0x7F) << shift
            if shift and not byte:
                raise Refused(f"{self.what}: a number is not in its shortest form")
            if not byte & 0x80:
                if value > limit:
                    raise Refused(f"{self.what} is larger than the format allows")
                return value
        raise Refused(f"{self.what} is malformed")

    def bytes(self, limit):
        return self.take(self.varint(limit))

    def flag(self):
        value = self.number("B")
        if value > 1:
            raise Refused(f"{self.what} is malformed")
        return value == 1

    def option(self, n):
        return self.take(n) if self.flag() else None

    def preamble(self, magic):
        if self.take(4) != magic:
            raise Refused(f"this is not a {self.what}")
        version = self.number("H")
        if version != VERSION:
            raise Refused(f"{self.what} has version {version >> 8}.{version & 255}: use the release that wrote it")

    def extensions(self):
        before = -1
        for _ in range(self.varint(64)):
            key = self.varint()
            self.bytes(1 << 20)
            if key <= before:
                raise Refused(f"{self.what}: extensions are not in order")
            if key % 2:
                raise Refused(f"{self.what} carries extension {key}: nothing is damaged, use a newer reader")
            before = key

    def end(self):
        if self.at != len(self.data):
            raise Refused(f"{self.what} is followed by bytes that do not belong to it")


# --- cryptography ----------------------------------------------------------------------------------------------------


def derive(context, material):
    return blake3(material, derive_key_context=context).digest()


def unseal(key, binding, slot, sealed, what):
    number = struct.pack(">I", slot)
    try:
        return AESGCM(key).decrypt(bytes(8) + number, bytes(sealed), binding + number)
    except InvalidTag:
        raise Refused(f"{what} does not open with this key") from None


class XWing:
    """X25519 and ML-KEM-768 together, from a 32-byte seed."""

    def __init__(self, seed):
        expanded = hashlib.shake_256(seed).digest(96)
        self.ml_kem = MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
        self.x25519 = X25519PrivateKey.from_private_bytes(expanded[64:])
        self.x25519_public = self.x25519.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def public(self):
        return self.ml_kem.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw) + self.x25519_public

    def unwrap(self, wrapped, binding):
        first, ephemeral, sealed = wrapped[:1088], wrapped[1088:1120], wrapped[1120:]
        secret = self.ml_kem.decapsulate(bytes(first)) + self.x25519.exchange(X25519PublicKey.from_public_bytes(ephemeral))
        shared = hashlib.sha3_256(secret + ephemeral + self.x25519_public + b"\\.//^\\").digest()
        return unseal(derive(REPOSITORY_V1 + "key wrapped to the seal key", shared), binding, 0, sealed, "wrapped key")


def verify(public, message, signature, what):
    try:
        Ed25519PublicKey.from_public_bytes(bytes(public)).verify(bytes(signature), message)
    except (InvalidSignature, ValueError):
        raise Refused(f"the signature of {what} is not valid") from None


def letters(text, count):
    """Crockford's base 32 as a person types it."""
    text = re.sub(r"[\s-]", "", text).upper().translate(str.maketrans("OIL", "011"))
    if len(text) * 5 != count * 8 or any(letter not in CROCKFORD for letter in text):
        raise Refused("a letter is missing or mistyped")
    value = 0
    for letter in text:
        value = value << 5 | CROCKFORD.index(letter)
    return value.to_bytes(count, "big")


def paper_key(text):
    data = letters(text, 25)
    if derive("holdfast paper key v1 2026-11 checksum", data[:20])[:5] != data[20:]:
        raise Refused("the paper key is mistyped")
    return data[:20]


# --- keys ------------------------------------------------------------------------------------------------------------


class Keys:
    """What a reader holds: the repository, the authority, the id key, and the keys of every epoch."""

    def __init__(self, repository, authority, id_key, epochs):
        self.repository, self.authority = bytes(repository), bytes(authority)
        self.epochs = {number: (bytes(catalog), XWing(bytes(seed))) for number, catalog, seed in epochs}
        self.chunk_key = {
            DATA: derive(REPOSITORY_V1 + "id of a data chunk", id_key),
            TREE: derive(REPOSITORY_V1 + "id of a tree page", id_key),
        }

    def epoch(self, number, what):
        if number not in self.epochs:
            raise Refused(f"{what} is sealed to epoch {number}, which this key does not hold")
        return self.epochs[number]


def parse_epochs(fields):
    epochs, before = [], 0
    for _ in range(fields.varint(1024)):
        number, _since = fields.number("I"), fields.number("q")
        if number <= before:
            raise Refused("epochs are not in order")
        before = number
        epochs.append((number, fields.take(32), fields.take(32)))
    if not epochs:
        raise Refused("there is no epoch")
    return epochs


def open_key_file(data):
    fields = Fields(data, "open key file")
    fields.preamble(b"HFok")
    repository, authority, id_key = fields.take(16), fields.take(32), fields.take(32)
    epochs = parse_epochs(fields)
    fields.end()
    return Keys(repository, authority, id_key, epochs)


def slot_costs(parameters):
    """Salt, memory, passes and lanes of a passphrase slot, refused before any work when they are too much."""
    fields = Fields(parameters, "keyring slot")
    salt, memory, passes, lanes = fields.take(32), fields.number("I"), fields.number("I"), fields.number("I")
    fields.end()
    if memory > 1 << 20 or passes > 64 or lanes > 16:
        raise Refused("keyring slot is larger than the format allows")
    return salt, memory, passes, lanes


def slot_seed(kind, secret, parameters):
    """The X-Wing seed of a slot from its secret."""
    if kind == 1:
        salt, memory, passes, lanes = slot_costs(parameters)
        stretched = Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory).derive(secret)
        return derive(KEYRING_V1 + "slot seed from a passphrase", stretched + salt)
    if len(parameters) != 32:
        raise Refused("keyring slot is malformed")
    return derive(KEYRING_V1 + "slot seed from a paper key", secret + parameters)


def keyring_header(data):
    """The clear beginning of a keyring: repository, number, salt, slots; and where the sealed secrets begin."""
    fields = Fields(data, "keyring")
    if len(data) > KEYRING_MAX:
        raise Refused("keyring is larger than the format allows")
    fields.preamble(b"HFkr")
    repository, number, read = fields.take(16), fields.number("Q"), fields.number("Q")
    fields.take(16)  # write and check features are not a reader's
    unknown = read & ~KNOWN_READ_FEATURES
    if unknown:
        flag = (unknown & -unknown).bit_length() - 1
        raise Refused(f"the repository uses read feature {flag}: nothing is damaged, use a newer reader")
    newest, salt, slots = fields.number("I"), fields.take(32), []
    for _ in range(fields.number("B")):
        kind, slot_id, _made = fields.number("B"), fields.take(8), fields.take(8)
        public, wrapped = fields.take(SLOT_KEY), fields.take(WRAPPED)
        slots.append((kind, slot_id, public, wrapped, fields.take(fields.number("H"))))
        if kind == 1:
            slot_costs(slots[-1][4])
    if not 1 <= len(slots) <= 32:
        raise Refused("keyring is larger than the format allows")
    return repository, number, newest, salt, slots, fields.at


def open_keyring(data, kind, secret):
    repository, _number, newest, salt, slots, at = keyring_header(data)
    for slot_kind, slot_id, public, wrapped, parameters in slots:
        if slot_kind != kind:
            continue
        pair = XWing(slot_seed(kind, secret, parameters))
        if pair.public() != public:
            continue
        binding = b"holdfast keyring slot v1\0" + struct.pack("<H", VERSION) + repository + salt
        root = pair.unwrap(wrapped, binding + bytes([kind]) + slot_id + parameters)
        signed, signature = data[:-64], data[-64:]
        plain = unseal(derive(KEYRING_V1 + "key of the secrets", root + salt), data[:at], 0, signed[at:], "keyring")
        fields = Fields(plain, "keyring")
        id_key, authority = fields.take(32), fields.take(32)
        epochs = parse_epochs(fields)
        fields.extensions()
        fields.end()
        public = Ed25519PrivateKey.from_private_bytes(authority).public_key()
        public = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
        verify(public, b"holdfast keyring v1\0" + signed, signature, "keyring")
        if epochs[-1][0] != newest:
            raise Refused("keyring is malformed")
        return Keys(repository, public, id_key, epochs)
    raise Refused("the passphrase or key does not open this repository's keyring")


# --- the store -------------------------------------------------------------------------------------------------------


class Store:
    """A folder of objects. Every object is compared with the hash in its name."""

    def __init__(self, folder):
        self.folder = folder
        if not os.path.isdir(os.path.join(folder, "keyring")):
            raise Refused(f"{folder} holds no repository")

    def names(self, prefix):
        found = []
        for folder, _, files in os.walk(os.path.join(self.folder, prefix)):
            found += [os.path.relpath(os.path.join(folder, name), self.folder) for name in files]
        # A further candidate stands for its object (2.1).
        return sorted({re.sub(r"\.[1-8]$", "", name) for name in found})

    def get(self, name):
        for candidate in [name] + [f"{name}.{number}" for number in range(1, 9)]:
            try:
                with open(os.path.join(self.folder, candidate), "rb") as file:
                    data = file.read()
            except OSError:
                continue
            if blake3(data).hexdigest() == re.split("[/-]", name)[-1]:
                return data
        raise Refused(f"object {name} is not what was written, or gone")

    def keyring(self):
        """The keyring in force: the highest number of those that are whole."""
        refused = Refused("there is no keyring")
        for name in reversed(self.names("keyring")):
            try:
                data = self.get(name)
                if int(name[8:24], 16) != keyring_header(data)[1]:
                    raise Refused("a keyring stands under another's name")
                return data
            except Refused as error:
                if "newer reader" in str(error) or "has version" in str(error):
                    raise
                refused = error
        raise refused

    def range(self, name, offset, length):
        with open(os.path.join(self.folder, name), "rb") as file:
            file.seek(offset)
            return file.read(length)


def open_parts(data, keys, kind, magic):
    """The catalog part and the open part of an index or snapshot object."""
    fields = Fields(data, kind + " object")
    fields.preamble(magic)
    if len(data) not in CLASSES or fields.number("H") != 0:
        raise Refused(f"{kind} object is malformed")
    number = fields.number("I")
    catalog_key, pair = keys.epoch(number, kind + " object")
    salt, wrapped = fields.take(32), fields.take(WRAPPED)
    binding = b"holdfast." + kind.encode() + b"\0" + struct.pack("<HI", VERSION, number) + keys.repository + salt
    key = derive(REPOSITORY_V1 + "key of one catalog part", catalog_key + salt)
    lengths = unseal(key, binding, 0, fields.take(8 + TAG), kind)
    catalog_length, open_length = struct.unpack("<II", lengths)
    catalog = unseal(key, binding, 1, fields.take(catalog_length + TAG), kind)
    sealed = fields.take(open_length + TAG)
    if any(unseal(key, binding, 2, fields.rest(), kind)):
        raise Refused(f"{kind} object: the padding is not zero")
    return catalog, unseal(pair.unwrap(wrapped, binding), binding, 0, sealed, kind)


# --- snapshots -------------------------------------------------------------------------------------------------------

Snapshot = collections.namedtuple("Snapshot", "id source taken_ms partial files bytes root tag users groups")


def head(data, keys):
    """The snapshot that a head names, and the name that the head must stand under."""
    fields = Fields(data, "head")
    if len(data) > HEAD_MAX:
        raise Refused("head is larger than the format allows")
    fields.preamble(b"HFhd")
    if fields.take(16) != keys.repository:
        raise Refused("head belongs to another repository")
    source, incarnation, counter = fields.take(16), fields.take(16), fields.number("Q")
    snapshot, before = fields.take(32), fields.option(32)
    seen = [fields.take(32) for _ in range(fields.varint(256))]
    fields.extensions()
    writer, certified, signature = fields.take(32), fields.take(64), fields.take(64)
    fields.end()
    if counter < 1 or (counter == 1) != (before is None) or (seen and counter > 1):
        raise Refused("head is malformed")
    verify(keys.authority, b"holdfast writer certificate v1\0" + keys.repository + writer, certified, "head")
    verify(writer, b"holdfast head v1\0" + data[:-64], signature, "head")
    return snapshot.hex(), f"heads/{source.hex()}/{incarnation.hex()}/{counter:016x}-{blake3(data).hexdigest()}"


def heads(store, keys):
    """Snapshot ids that valid heads name; one that is not valid is passed over, and said."""
    found = set()
    for name in store.names("heads"):
        try:
            snapshot, expected = head(store.get(name), keys)
            if name != expected:
                raise Refused("a head stands under another's name")
            found.add(snapshot)
        except Refused as error:
            print(f"head passed over: {error}", file=sys.stderr)
    return found


def owners(fields):
    names, before = {}, -1
    for _ in range(fields.varint(65536)):
        number, name = fields.varint(0xFFFFFFFF), fields.bytes(255)
        if number <= before or not name or re.search(rb"[\0:\n]", name):
            raise Refused("inner manifest is malformed")
        names[number], before = name, number
    return names


def text(data, what):
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Refused(f"{what} is malformed") from None


def outer_manifest(data):
    fields = Fields(data, "outer manifest")
    source = text(fields.bytes(255), fields.what)
    fields.take(16)
    fields.varint()
    fields.option(32)
    taken, root, partial = fields.number("q"), fields.take(32), fields.flag()
    files, size, _added = fields.varint(), fields.varint(), fields.varint()
    fields.option(32)
    fields.extensions()
    fields.end()
    return source, taken, partial, files, size, root


def inner_manifest(data):
    fields = Fields(data, "inner manifest")
    tag = text(fields.bytes(255), fields.what) if fields.flag() else None
    if fields.flag():
        fields.bytes(4 << 20)
    for _ in range(fields.varint(1024)):
        fields.bytes(255), fields.varint(0xFFFFFFFF), fields.bytes(65536)
    fields.varint()
    for _ in range(fields.varint(10000)):
        fields.bytes(65536)
        if fields.number("B") not in (1, 2, 3, 4):
            raise Refused("inner manifest is malformed")
    users, groups = owners(fields), owners(fields)
    fields.extensions()
    fields.end()
    return tag, users, groups


def read_snapshot(store, keys, snapshot):
    outer, inner = open_parts(store.get("snapshots/" + snapshot), keys, "snapshot", b"HFsn")
    return Snapshot(snapshot, *outer_manifest(outer), *inner_manifest(inner))


def read_snapshots(store, keys):
    """Those that this store can tell of; one whose manifest is damaged or gone here keeps nobody from the others."""
    found = []
    for name in heads(store, keys):
        try:
            found.append(read_snapshot(store, keys, name))
        except Refused as error:
            print(f"snapshot passed over: {error}", file=sys.stderr)
    return found


# --- chunks ----------------------------------------------------------------------------------------------------------

Pack = collections.namedtuple("Pack", "name kind key binding segments")
Segment = collections.namedtuple("Segment", "offset sealed compressed chunks")


def read_index(catalog, inner, repository):
    catalog, inner, packs = Fields(catalog, "index"), Fields(inner, "index"), []
    for _ in range(catalog.varint(4096)):
        name, kind, size = catalog.take(32).hex(), catalog.number("B"), catalog.number("B")
        if kind not in (DATA, TREE) or size >= len(CLASSES):
            raise Refused(f"a pack is of kind {kind} and class {size}: malformed, or of a newer release")
        epoch = catalog.varint(0xFFFFFFFF)
        catalog.extensions()
        segments = [[catalog.take(32) for _ in range(catalog.varint(65536))] for _ in range(catalog.varint(65536))]
        pack_id, key = inner.take(16), inner.take(32)
        inner.extensions()
        binding = b"holdfast.pack\0" + struct.pack("<HBI", VERSION, kind, epoch) + repository + pack_id
        pack, free = Pack(f"packs/{name[:2]}/{name}", kind, key, binding, []), 1196
        for ids in segments:
            offset, sealed, compressed = inner.varint(1 << 24), inner.varint(1 << 24), inner.flag()
            chunks = [(chunk, inner.varint(SEGMENT_PLAIN_MAX)) for chunk in ids]
            if offset < free or sealed < TAG or offset + sealed > CLASSES[size]:
                raise Refused("index: segments overlap or leave their pack")
            if sum(length for _, length in chunks) > SEGMENT_PLAIN_MAX:
                raise Refused("segment is larger than the format allows")
            free = offset + sealed
            pack.segments.append(Segment(offset, sealed, compressed, chunks))
        packs.append(pack)
    catalog.end()
    inner.end()
    return packs


class Chunks:
    """Finds chunks by their id; a location is a hint, the id is recomputed."""

    def __init__(self, store, keys):
        self.store, self.keys, self.places = store, keys, {}
        self.cache = collections.OrderedDict()
        for name in store.names("index"):
            try:
                packs = read_index(*open_parts(store.get(name), keys, "index", b"HFix"), keys.repository)
            except Refused as error:
                print(f"index object passed over: {error}", file=sys.stderr)
                continue
            for pack in packs:
                for number, segment in enumerate(pack.segments):
                    for chunk, _ in segment.chunks:
                        self.places.setdefault((pack.kind, chunk), []).append((pack, number))

    def plain(self, pack, number):
        known = self.cache.get((pack.name, number))
        if known is None:
            segment = pack.segments[number]
            try:
                sealed = self.store.range(pack.name, segment.offset, segment.sealed)
                known = unseal(pack.key, pack.binding, number, sealed, "segment")
            except (Refused, OSError):
                # A further candidate may be whole.
                sealed = self.store.get(pack.name)[segment.offset : segment.offset + segment.sealed]
                known = unseal(pack.key, pack.binding, number, sealed, "segment")
            length = sum(length for _, length in segment.chunks)
            if segment.compressed:
                known = zstandard.ZstdDecompressor().decompress(known, max_output_size=length)
            if len(known) != length:
                raise Refused("segment is malformed")
            self.cache[(pack.name, number)] = known
            if len(self.cache) > 32:
                self.cache.popitem(last=False)
        return known

    def get(self, kind, chunk):
        for pack, number in self.places.get((kind, chunk), []):
            try:
                plain, at = self.plain(pack, number), 0
            except (Refused, OSError, zstandard.ZstdError):
                continue
            for found, length in pack.segments[number].chunks:
                data = plain[at : at + length]
                if found == chunk and blake3(data, key=self.keys.chunk_key[kind]).digest() == chunk:
                    return data
                at += length
        raise Refused("a chunk is damaged or gone")


# --- the tree --------------------------------------------------------------------------------------------------------

Entry = collections.namedtuple("Entry", "name type mode uid gid mtime_ns xattrs link body")


def is_plain(name):
    return 0 < len(name) <= 255 and name not in (b".", b"..") and b"/" not in name and b"\0" not in name


def read_extent(fields):
    head = fields.varint()
    if head & 1 == 0:
        extent = (head >> 1, fields.take(32))
    elif head == 1:
        extent = (fields.varint(), None)
    else:
        raise Refused("tree page is malformed")
    if extent[0] == 0 or (extent[1] and extent[0] > CHUNK_MAX):
        raise Refused("tree page is malformed")
    return extent


def read_entry(fields):
    name, kind = fields.bytes(255), fields.number("B")
    if not is_plain(name):
        raise Refused("entry name is malformed")
    mode, uid, gid = fields.varint(0o7777), fields.varint(0xFFFFFFFF), fields.varint(0xFFFFFFFF)
    seconds, nanoseconds = fields.number("q"), fields.varint(999_999_999)
    xattrs = [(fields.bytes(255), fields.bytes(65536)) for _ in range(fields.varint(1024))]
    if any(a >= b for (a, _), (b, _) in zip(xattrs, xattrs[1:])) or any(b"\0" in key for key, _ in xattrs):
        raise Refused("tree page is malformed")
    link = (fields.varint(), fields.varint()) if fields.flag() else None
    fields.extensions()
    if kind == 1:
        size, count = fields.varint(), fields.varint(17)
        body = (size, [read_extent(fields) for _ in range(count - 1)] if count else fields.take(32))
        if count and sum(length for length, _ in body[1]) != size:
            raise Refused("tree page is malformed")
    elif kind == 2:
        body = fields.take(32)
    elif kind == 3:
        body = fields.bytes(4096)
        if not body or b"\0" in body:
            raise Refused("tree page is malformed")
    elif kind in (4, 5):
        body = None
    elif kind in (6, 7):
        body = (fields.varint(0xFFFFFFFF), fields.varint(0xFFFFFFFF))
    else:
        raise Refused("tree page is malformed")
    return Entry(name, kind, mode, uid, gid, seconds * 10**9 + nanoseconds, xattrs, link, body)


PAGE_ITEMS = {
    1: read_entry,
    2: lambda fields: (fields.bytes(255), fields.take(32)),
    3: read_extent,
    4: lambda fields: (fields.varint(), fields.take(32)),
}


def read_page(data):
    """Kind and items of one page."""
    fields = Fields(data, "tree page")
    version, kind = fields.number("B"), fields.number("B")
    if version != PAGE_VERSION:
        raise Refused(f"tree page has version {version}: use a newer reader")
    if kind not in PAGE_ITEMS or len(data) > CHUNK_MAX:
        raise Refused("tree page is malformed")
    found = [PAGE_ITEMS[kind](fields) for _ in range(fields.varint(len(data)))]
    fields.end()
    names = [item[0] for item in found]
    if kind in (1, 2) and any(a >= b for a, b in zip(names, names[1:])):
        raise Refused("tree page is malformed")
    return kind, found


def items(chunks, page, kinds, level=0):
    """The items of a page tree: kinds are the page kinds of its leaves and of its index pages."""
    kind, found = read_page(chunks.get(TREE, page))
    if kind == kinds[0]:
        yield from found
    elif kind == kinds[1] and level < LEVELS_MAX:
        for _, below in found:
            yield from items(chunks, below, kinds, level + 1)
    else:
        raise Refused("tree page is malformed")


def directory(chunks, page):
    before = b""
    for entry in items(chunks, page, (1, 2)):
        if entry.name <= before:
            raise Refused("directory order is malformed")
        before = entry.name
        yield entry


# --- restoring -------------------------------------------------------------------------------------------------------


class Restore:
    """Creates a snapshot's tree in an empty folder. Everything goes through directory handles, never through a link."""

    def __init__(self, chunks, target):
        os.makedirs(target, exist_ok=True)
        if os.listdir(target):
            raise Refused(f"{target} is not empty")
        self.chunks, self.links = chunks, {}
        self.top = os.open(target, os.O_RDONLY | os.O_DIRECTORY)

    def directory(self, handle, page, path):
        for entry in directory(self.chunks, page):
            where = os.path.join(path, entry.name)
            first = self.links.get(entry.link) if entry.link else None
            if first is not None:
                os.link(first, entry.name, src_dir_fd=self.top, dst_dir_fd=handle, follow_symlinks=False)
                continue
            if entry.link:
                self.links[entry.link] = where
            self.create(handle, entry, where)
            self.attributes(handle, entry)

    def create(self, handle, entry, where):
        if entry.type == 1:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            file = os.open(entry.name, flags, 0o600, dir_fd=handle)
            try:
                self.content(file, *entry.body)
            finally:
                os.close(file)
        elif entry.type == 2:
            os.mkdir(entry.name, 0o700, dir_fd=handle)
            below = os.open(entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle)
            try:
                self.directory(below, entry.body, where)
            finally:
                os.close(below)
        elif entry.type == 3:
            os.symlink(entry.body, entry.name, dir_fd=handle)
        else:
            form = {4: stat.S_IFIFO, 5: stat.S_IFSOCK, 6: stat.S_IFCHR, 7: stat.S_IFBLK}[entry.type]
            device = os.makedev(*entry.body) if entry.body else 0
            os.mknod(entry.name, form | 0o600, device, dir_fd=handle)

    def content(self, file, size, extents):
        os.ftruncate(file, size)
        at = 0
        for length, chunk in items(self.chunks, extents, (3, 4)) if isinstance(extents, bytes) else extents:
            if chunk is not None:
                data = self.chunks.get(DATA, chunk)
                if len(data) != length or os.pwrite(file, data, at) != length:
                    raise Refused("a chunk has another length than its extent")
            at += length
        if at != size:
            raise Refused("the extents of a file do not add up to its size")

    def attributes(self, handle, entry):
        os.chown(entry.name, entry.uid, entry.gid, dir_fd=handle, follow_symlinks=False)
        if entry.type != 3:
            os.chmod(entry.name, entry.mode, dir_fd=handle)
        if entry.xattrs and entry.type in (1, 2):
            opened = os.open(entry.name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=handle)
            for key, value in entry.xattrs:
                os.setxattr(opened, key, value)
            os.close(opened)
        times = (entry.mtime_ns, entry.mtime_ns)
        os.utime(entry.name, ns=times, dir_fd=handle, follow_symlinks=False)


# --- the command -----------------------------------------------------------------------------------------------------


def unlock(args, store):
    if args.open_key:
        keys = open_key_file(open(args.open_key, "rb").read())
        if keyring_header(store.keyring())[0] != keys.repository:
            raise Refused("the open key file belongs to another repository")
        return keys
    if args.paper_key_file:
        return open_keyring(store.keyring(), 2, paper_key(open(args.paper_key_file).read()))
    if args.passphrase_file:
        return open_keyring(store.keyring(), 1, open(args.passphrase_file, "rb").read().rstrip(b"\r\n"))
    if os.environ.get("BACKUPD_PASSPHRASE"):
        return open_keyring(store.keyring(), 1, os.environb[b"BACKUPD_PASSPHRASE"])
    raise Refused("no key is given")


def run(args):
    store = Store(args.store)
    keys = unlock(args, store)
    snapshots = read_snapshots(store, keys)
    snapshots.sort(key=lambda snapshot: (snapshot.taken_ms, snapshot.id), reverse=True)
    if args.command == "list":
        for s in snapshots:
            state = "partial" if s.partial else "whole"
            print(f"{s.id} {s.taken_ms} {s.source} {state} {s.files} files {s.bytes} bytes tag {s.tag or '-'}")
        return
    fitting = [s for s in snapshots if args.snapshot in ("latest", s.tag) or s.id.startswith(args.snapshot)]
    if not fitting:
        raise Refused("the store holds no such snapshot")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sys.setrecursionlimit(100_000)
    restore = Restore(Chunks(store, keys), args.target)
    restore.directory(restore.top, fitting[0].root, b"")
    print(f"restored {fitting[0].id}")


def main():
    parser = argparse.ArgumentParser(description="A second reader of Holdfast repositories")
    parser.add_argument("--store", required=True, metavar="DIR")
    parser.add_argument("--open-key", metavar="FILE")
    parser.add_argument("--paper-key-file", metavar="FILE")
    parser.add_argument("--passphrase-file", metavar="FILE", help="else BACKUPD_PASSPHRASE")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list")
    restore = commands.add_parser("restore")
    restore.add_argument("snapshot", help="an id, its beginning, a tag, or latest")
    restore.add_argument("target")
    try:
        run(parser.parse_args())
    except (Refused, OSError) as error:
        sys.exit(f"holdfast_reader: {error}")


if __name__ == "__main__":
    main()
