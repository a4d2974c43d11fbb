"""
What a host meets on a path whose MTU it doesn't know. Each mode prints what it saw, the same on every machine.

    path_mtu.py ping ADDRESS dont|do STEP   echo requests of every STEP-th size from 0 to 65,507 (and those around every
                                            edge), the answers' bytes compared; without and with "don't fragment"
    path_mtu.py serve PORT                  takes one connection and one datagram for each that arrives; prints their digests
    path_mtu.py tcp ADDRESS PORT BYTES      sends so many; prints their digest and the path's MTU as the kernel learnt it
    path_mtu.py udp ADDRESS PORT BYTES      sends a datagram with DF, anew with as much as fits when it is told that it is too long
"""
import hashlib
import select
import socket
import struct
import sys
import time

IP_MTU_DISCOVER, IP_MTU = 10, 14
DONT, DO, PROBE = 0, 2, 3
SO_RCVBUFFORCE = 33
MOST = 65507
IDENT = 0x6875
EDGES = (0, 8, 16, 1252, 1256, 1472, 1480, 2 * 1256, 2 * 1480, 65496, MOST)
PATTERN = bytes((i * 7 + (i >> 8)) & 255 for i in range(MOST))


# Bytes and packets under way at most: fewer than a device queues, even in fragments.
WINDOW = 192 << 10
MOST_WAITING = 32


def words_sum(data):
    """Of 16-bit words, the last one padded, folded."""
    if len(data) % 2:
        data += b"\0"
    return sum(struct.unpack("!%dH" % (len(data) // 2), data)) % 0xFFFF


def prefix_sums():
    """words_sum of the pattern's first bytes, for every even number of them."""
    sums = [0]
    for high, low in zip(PATTERN[::2], PATTERN[1::2]):
        sums.append(sums[-1] + (high << 8 | low))
    return sums


SUMS = prefix_sums()


def echo(size):
    head = struct.pack("!BBHHH", 8, 0, 0, IDENT, size)
    odd = PATTERN[size - 1] << 8 if size % 2 else 0
    checksum = 0xFFFF - (words_sum(head) + SUMS[size // 2] + odd) % 0xFFFF
    return struct.pack("!BBHHH", 8, 0, checksum, IDENT, size) + PATTERN[:size]


def reading(packet):
    """The size that a packet answers, and what it says; a size of -1: it answers none."""
    icmp = packet[(packet[0] & 15) * 4 :]
    kind, code, _, ident, sequence = struct.unpack("!BBHHH", icmp[:8])
    if kind == 0 and ident == IDENT:
        return sequence, "answered" if icmp[8:] == PATTERN[:sequence] else "answered wrongly"
    if kind in (3, 11, 12):
        quoted = icmp[8:]
        about = quoted[(quoted[0] & 15) * 4 :]
        ident, size = struct.unpack("!HH", about[4:8])
        if ident == IDENT:
            return size, "ICMP %d/%d, MTU %d" % (kind, code, sequence)
    return -1, ""


def outcomes(sock, address, sizes):
    """What is heard of each size, several under way at a time."""
    found = {}
    waiting = {}
    left = iter(sizes)
    size = next(left, None)
    while size is not None or waiting:
        while size is not None and (not waiting or (len(waiting) < MOST_WAITING and sum(waiting) + size <= WINDOW)):
            try:
                sock.sendto(echo(size), (address, 0))
                waiting[size] = time.monotonic() + 5
            except OSError as error:
                found[size] = "errno %d" % error.errno
            size = next(left, None)
        if select.select([sock], [], [], 0.5)[0]:
            about, what = reading(sock.recv(65536))
            if waiting.pop(about, None) is not None:
                found[about] = what
        else:
            for late in [late for late, end in waiting.items() if end < time.monotonic()]:
                del waiting[late]
                found[late] = "nothing"
    return found


def ping(address, how, step):
    sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    sock.setsockopt(socket.SOL_IP, IP_MTU_DISCOVER, PROBE if how == "do" else DONT)
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 23)
    near = {size for edge in EDGES for size in range(max(0, edge - 3), min(MOST, edge + 3) + 1)}
    sizes = sorted(near | set(range(0, MOST + 1, step)))
    found = outcomes(sock, address, sizes)
    first = last = None
    seen = ""
    for size in sizes:
        if found[size] != seen:
            if seen:
                print("%d to %d: %s" % (first, last, seen))
            first, seen = size, found[size]
        last = size
    print("%d to %d: %s" % (first, last, seen))


def digest(data):
    return hashlib.sha256(data).hexdigest()[:16]


def serve(port):
    stream = socket.socket()
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    stream.bind(("", port))
    stream.listen()
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("", port))
    print("ready", flush=True)
    while True:
        for ready in select.select([stream, datagrams], [], [])[0]:
            if ready is datagrams:
                data, whence = datagrams.recvfrom(65536)
                datagrams.sendto(("%d %s" % (len(data), digest(data))).encode(), whence)
                continue
            connection, _ = stream.accept()
            sum_ = hashlib.sha256()
            while True:
                data = connection.recv(65536)
                if not data:
                    break
                sum_.update(data)
            connection.sendall(sum_.hexdigest()[:16].encode())
            connection.close()


def tcp(address, port, size):
    data = (PATTERN * (size // MOST + 1))[:size]
    sock = socket.create_connection((address, port), 10)
    sock.settimeout(20)
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)
    same = sock.recv(100).decode() == digest(data)
    print("%d bytes %s, MTU %d" % (size, "arrived" if same else "are wrong", sock.getsockopt(socket.SOL_IP, IP_MTU)))


def udp(address, port, size):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_IP, IP_MTU_DISCOVER, DO)
    sock.settimeout(3)
    sock.connect((address, port))
    for _ in range(4):
        try:
            sock.send(PATTERN[:size])
            answer = sock.recv(100).decode()
            print("%s of %d bytes" % ("arrived" if answer == "%d %s" % (size, digest(PATTERN[:size])) else "wrong", size))
            return
        except OSError as error:
            size = min(size, sock.getsockopt(socket.SOL_IP, IP_MTU) - 28)
            print("too long: %s, MTU %d" % (error.errno, size + 28))
    print("never arrived")


mode, *arguments = sys.argv[1:]
if mode == "ping":
    ping(arguments[0], arguments[1], int(arguments[2]))
elif mode == "serve":
    serve(int(arguments[0]))
else:
    {"tcp": tcp, "udp": udp}[mode](arguments[0], int(arguments[1]), int(arguments[2]))
