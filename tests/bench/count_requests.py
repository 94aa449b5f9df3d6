#!/usr/bin/env python3
"""A loopback proxy before an S3 server that counts requests by what providers charge for.

    count_requests.py --to PORT

Prints its own port, then serves until SIGTERM; at each SIGUSR1 it prints the counts so far as a line of JSON.
"""
import argparse
import asyncio
import collections
import json
import re
import signal

REQUEST = re.compile(rb"(GET|HEAD|PUT|POST|DELETE) (/[^ \r\n]*) HTTP/1\.1\r\n")
# Longer than a request line: one may be cut at the end of a piece.
OVERLAP = 2048
PIECE_BYTES = 256 << 10


def kind(method, target):
    if method == b"GET" and b"list-type=2" in target:
        return "list"
    return method.decode().lower()


async def pump(reader, writer, counts=None):
    before = b""
    try:
        while piece := await reader.read(PIECE_BYTES):
            if counts is not None:
                seen, end = before + piece, 0
                for found in REQUEST.finditer(seen):
                    counts[kind(found[1], found[2])] += 1
                    end = found.end()
                before = seen[max(end, len(seen) - OVERLAP):]
            writer.write(piece)
            await writer.drain()
    except OSError:
        pass                                         # the other side has gone; the client sees a closed connection
    finally:
        writer.close()


async def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--to", type=int, required=True)
    a = p.parse_args()
    counts = collections.Counter()

    async def serve(reader, writer):
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", a.to)
        except OSError:
            writer.close()
            return
        await asyncio.gather(pump(reader, up_writer, counts), pump(up_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    loop.add_signal_handler(signal.SIGUSR1, lambda: print(json.dumps(counts), flush=True))
    await ended.wait()
    server.close()


asyncio.run(main())
