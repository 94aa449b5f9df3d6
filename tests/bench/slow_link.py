#!/usr/bin/env python3
"""A loopback TCP proxy that stands for a distant store: a delay added to every answer, one bandwidth limit for all
connections in each direction.

    slow_link.py --to PORT [--delay-ms 30] [--mb-per-s 50]

Prints its own port, then serves until SIGTERM, then prints the bytes that went up and down. Every byte of an answer comes the
delay later than the server sent it: a request waits the delay once, a long answer is not slowed by it.
"""
import argparse
import asyncio
import os
import signal

PIECE_BYTES = 64 << 10
# More than bandwidth times delay, so that the limit is reached by one connection too.
PIECES_IN_FLIGHT = 256


class Link:
    """One direction, shared by all connections: pieces leave it one after another at the limit's pace."""

    def __init__(self, delay, bytes_per_second):
        self.delay, self.rate = delay, bytes_per_second
        self.free_at = 0.0
        self.carried = 0

    def due(self, size):
        now = asyncio.get_running_loop().time()
        if self.rate:
            self.free_at = max(self.free_at, now) + size / self.rate
        self.carried += size
        return max(self.free_at, now) + self.delay


async def pump(reader, writer, link):
    loop, pieces = asyncio.get_running_loop(), asyncio.Queue(PIECES_IN_FLIGHT)

    async def take():
        while piece := await reader.read(PIECE_BYTES):
            await pieces.put((link.due(len(piece)), piece))
        await pieces.put((0, b""))

    taking = asyncio.create_task(take())
    try:
        while True:
            due, piece = await pieces.get()
            if not piece:
                break
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            writer.write(piece)
            await writer.drain()
    except OSError:
        pass                                         # the other side has gone; the client sees a closed connection
    finally:
        taking.cancel()
        writer.close()


async def serve(to, delay, rate):
    up, down = Link(0, rate), Link(delay, rate)

    async def connection(reader, writer):
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", to)
        except OSError:
            writer.close()
            return
        await asyncio.gather(pump(reader, far_writer, up), pump(far_reader, writer, down), return_exceptions=True)

    server = await asyncio.start_server(connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: print(up.carried, down.carried, flush=True))
    await stopped.wait()
    print(up.carried, down.carried, flush=True)
    os._exit(0)                                      # connections still open are cut, without a complaint from each


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--to", type=int, required=True, help="the server's port on 127.0.0.1")
    p.add_argument("--delay-ms", type=float, default=30)
    p.add_argument("--mb-per-s", type=float, default=0, help="limit in each direction, 1e6 bytes a second; 0: none")
    a = p.parse_args()
    asyncio.run(serve(a.to, a.delay_ms / 1000, a.mb_per_s * 1e6))


if __name__ == "__main__":
    main()
