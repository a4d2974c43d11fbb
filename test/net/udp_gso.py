"""UDP with segmentation offload (UDP_SEGMENT) out and aggregation (UDP_GRO) in, as QUIC stacks use it.

    udp_gso.py send HOST PORT BURSTS     bursts of 10 datagrams of 1,200 bytes, each burst one system call
    udp_gso.py receive PORT COUNT        prints "ready", then JSON about what came: until COUNT or 3 quiet seconds

Node's dgram cannot set these options, hence Python. Every datagram carries its number and a pattern made from it.
"""

import json
import socket
import struct
import sys

UDP_SEGMENT, UDP_GRO = 103, 104
SEGMENT, SEGMENTS = 1200, 10


def datagram(number):
    return struct.pack("!I", number) + bytes((number * 7 + i) & 0xFF for i in range(SEGMENT - 4))


def send(host, port, bursts):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, SEGMENT)
    s.connect((host, port))
    for burst in range(bursts):
        s.send(b"".join(datagram(burst * SEGMENTS + i) for i in range(SEGMENTS)))
    print(json.dumps({"port": s.getsockname()[1]}))


def receive(port, count):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    s.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
    s.bind(("0.0.0.0", port))
    s.settimeout(3)
    print("ready", flush=True)
    numbers, bad, aggregated, sources = [], 0, 0, set()
    try:
        while len(numbers) < count:
            data, control, _, source = s.recvmsg(65535, socket.CMSG_SPACE(4))
            size = next((struct.unpack("=i", c[2][:4])[0] for c in control if c[1] == UDP_GRO), len(data))
            aggregated += len(data) > size
            sources.add(source)
            for at in range(0, len(data), size):
                piece = data[at : at + size]
                number = struct.unpack("!I", piece[:4])[0] if len(piece) >= 4 else -1
                numbers.append(number)
                bad += piece != datagram(number)
    except TimeoutError:
        pass
    result = {
        "count": len(numbers),
        "distinct": len(set(numbers)),
        "bad": bad,
        "aggregated": aggregated,
        "sources": sorted(f"{host}:{port}" for host, port in sources),
    }
    print(json.dumps(result))


if sys.argv[1] == "send":
    send(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
else:
    receive(int(sys.argv[2]), int(sys.argv[3]))
