#!/usr/bin/env python3
"""Packet captures built with scapy, each with a description of what is in it.

    pip install scapy
    tools/captures/held_out.py /tmp/held-out
    MILLSTREAM_CAPTURES=/tmp/held-out cargo test -p millstream-cli --test captures every_capture

Packets come from a library that shares nothing with the importer. A description follows from what
was put into the file, and scapy reads each file again as a check of the file itself.
"""
import gzip
import hashlib
import json
import struct
import sys
from pathlib import Path

from scapy.all import (IP, IPv6, TCP, UDP, CookedLinux, CookedLinuxV2, Dot1AD, Dot1Q, Ether,
                       IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, Raw, fragment6, raw, rdpcap)

START_NS = 1_700_000_000_123_456_789
A, B = ("192.0.2.1", 40000), ("192.0.2.2", 9999)
A6, B6 = ("2001:db8::1", 40000), ("2001:db8::2", 9999)


def end(address):
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Stream:
    """A direction of a connection: its events, in the order of their places."""

    def __init__(self):
        self.data, self.events = b"", []

    def add(self, t, text):
        self.events.append({"kind": "data", "at": len(self.data), "t": t, "bytes": len(text),
                            "text": text.decode()})
        self.data += text

    def close(self, t):
        self.events.append({"kind": "half-close", "at": len(self.data), "t": t})

    def description(self):
        return {"bytes": len(self.data), "sha256": hashlib.sha256(self.data).hexdigest(),
                "gap_bytes": 0, "events": self.events}


class Tcp:
    """A connection: its packets without their link layer, each with its time."""

    def __init__(self, a, b, first=1000, step_ns=1_000_000):
        self.a, self.b, self.step_ns = a, b, step_ns
        self.next = [first, 77]
        self.packets, self.now = [], START_NS
        self.streams = [Stream(), Stream()]
        self.t_open = self.now
        self.add(0, "S", self.next[0])
        self.next[0] += 1
        self.add(1, "SA", self.next[1])
        self.next[1] += 1
        self.add(0, "A", self.next[0])

    def packet(self, side, flags, seq, data=b""):
        source, target = (self.a, self.b) if side == 0 else (self.b, self.a)
        network = IPv6 if ":" in source[0] else IP
        tcp = TCP(sport=source[1], dport=target[1], flags=flags, seq=seq % 2**32,
                  ack=self.next[1 - side] % 2**32)
        return network(src=source[0], dst=target[0]) / tcp / Raw(data) if data else \
            network(src=source[0], dst=target[0]) / tcp

    def add(self, side, flags, seq, data=b""):
        self.packets.append((self.now, self.packet(side, flags, seq, data)))
        self.now += self.step_ns

    def send(self, side, *texts, order=None):
        """Sends segments in an order other than theirs."""
        starts, at = [], self.next[side]
        for text in texts:
            starts.append(at)
            at += len(text)
        have, times = set(), {}
        for index in order or range(len(texts)):
            t = self.now
            self.add(side, "PA", starts[index], texts[index])
            have.add(index)
            whole = 0
            while whole in have:
                times.setdefault(whole, t)
                whole += 1
        for index, text in enumerate(texts):
            self.streams[side].add(times[index], text)
        self.next[side] = at

    def close(self):
        for side in (0, 1):
            self.streams[side].close(self.now)
            self.add(side, "FA", self.next[side])
            self.next[side] += 1
        self.add(0, "A", self.next[0])

    def description(self):
        return {"a": end(self.a), "b": end(self.b), "open": "syn", "t_open": self.t_open,
                "end": "fin", "a_to_b": self.streams[0].description(),
                "b_to_a": self.streams[1].description()}


def floored(value, unit_ns):
    return value // unit_ns * unit_ns


def rounded(connection, round_ns):
    """Times as a file of a coarser resolution has them."""
    connection["t_open"] = round_ns(connection["t_open"])
    for side in ("a_to_b", "b_to_a"):
        for event in connection[side]["events"]:
            event["t"] = round_ns(event["t"])
    return connection


def ether(packet):
    return Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / packet


def pcap(packets, link, big=False, nano=False, snap=None):
    order = ">" if big else "<"
    out = struct.pack(order + "IHHiIII", 0xA1B23C4D if nano else 0xA1B2C3D4, 2, 4, 0, 0, 65535, link)
    for t, packet in packets:
        data = raw(packet)
        fraction = t % 10**9 if nano else t % 10**9 // 1000
        cut = data[:snap] if snap else data
        out += struct.pack(order + "IIII", t // 10**9, fraction, len(cut), len(data)) + cut
    return out


def block(kind, body, order="<"):
    body += b"\0" * (-len(body) % 4)
    return struct.pack(order + "II", kind, len(body) + 12) + body + struct.pack(order + "I", len(body) + 12)


def option(code, value, order="<"):
    return struct.pack(order + "HH", code, len(value)) + value + b"\0" * (-len(value) % 4)


def pcapng(packets, link, tsresol, offset=0, order="<"):
    """`tsresol` is a byte: a power of ten, or of two if its top bit is set."""
    ticks = 2 ** (tsresol & 127) if tsresol & 128 else 10 ** tsresol
    out = block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)
    options = option(9, bytes([tsresol]), order) + option(14, struct.pack(order + "q", offset), order)
    out += block(1, struct.pack(order + "HHI", link, 0, 0) + options + option(0, b"", order), order)
    for t, packet in packets:
        data, stamp = raw(packet), (t - offset * 10**9) * ticks // 10**9
        body = struct.pack(order + "IIIII", 0, stamp >> 32, stamp & 0xFFFFFFFF, len(data), len(data))
        out += block(6, body + data + b"\0" * (-len(data) % 4), order)
        out += block(0x0BAD, b"an unknown block", order)
    return out


def in_ticks(tsresol):
    ticks = 2 ** (tsresol & 127) if tsresol & 128 else 10 ** tsresol
    return lambda t: t * ticks // 10**9 * 10**9 // ticks


def conversation(a=A, b=B, **options):
    tcp = Tcp(a, b, **options)
    tcp.send(0, b"one\n", b"two\n", b"three\n", order=[1, 2, 0])
    tcp.send(1, b"an answer\n")
    tcp.send(0, b"four\n", b"five\n")
    tcp.close()
    return tcp


def files():
    """Name, bytes, packets, what was skipped, connections, datagrams."""
    micro = lambda t: floored(t, 1000)
    for tsresol, offset in [(0x80 | 20, 0), (0x80 | 10, 0), (0x80 | 33, 5), (3, -7), (0, 3600), (9, -1)]:
        tcp = conversation()
        ng = pcapng([(t, ether(p)) for t, p in tcp.packets], 1, tsresol, offset,
                    ">" if tsresol & 1 else "<")
        expected = rounded(tcp.description(), in_ticks(tsresol))
        yield f"tsresol-{tsresol}-{offset}.pcapng", ng, len(tcp.packets), {}, [expected], []
        if tsresol == 9:
            yield "ng.pcapng.gz", gzip.compress(ng), len(tcp.packets), {}, [expected], []

    for name, cooked, link in [("sll", CookedLinux, 113), ("sll2", CookedLinuxV2, 276)]:
        for family, (a, b) in [("4", (A, B)), ("6", (A6, B6))]:
            tcp = conversation(a, b)
            number = 0x0800 if family == "4" else 0x86DD
            packets = [(t, cooked(proto=number) / p) for t, p in tcp.packets]
            yield (f"{name}-v{family}.pcap", pcap(packets, link), len(packets), {},
                   [rounded(tcp.description(), micro)], [])

    tcp = conversation()
    tagged = [(t, Ether() / Dot1AD(vlan=100, type=0x8100) / Dot1Q(vlan=7, type=0x0800) / p)
              for t, p in tcp.packets]
    yield "qinq.pcap", pcap(tagged, 1), len(tagged), {}, [rounded(tcp.description(), micro)], []

    tcp = conversation(first=2**32 - 7)
    yield ("wrap-nano-big-endian.pcap", pcap([(t, ether(p)) for t, p in tcp.packets], 1, True, True),
           len(tcp.packets), {}, [tcp.description()], [])

    # The last packet, an acknowledgement, is cut within its record.
    tcp = conversation()
    whole = pcap([(t, ether(p)) for t, p in tcp.packets], 1)
    last = 16 + len(raw(ether(tcp.packets[-1][1])))
    yield ("cut-last.pcap", whole[:-3], len(tcp.packets) - 1, {},
           [rounded(tcp.description(), micro)], [], len(whole) - last)

    yield fragments6()


def fragments6():
    text = b"".join(b"datagram line %04d\n" % n for n in range(200))
    whole = IPv6(src=A6[0], dst=B6[0]) / IPv6ExtHdrDestOpt() / IPv6ExtHdrFragment(id=7) \
        / UDP(sport=A6[1], dport=B6[1]) / Raw(text)
    parts = fragment6(whole, 1280)
    assert len(parts) > 2
    parts = [parts[-1]] + parts[:-1]
    packets = [(START_NS + n * 1000, Ether() / p) for n, p in enumerate(parts)]
    # One more fragment, of a datagram that never becomes whole.
    alone = IPv6(src=A6[0], dst=B6[0]) / IPv6ExtHdrFragment(id=8, m=1, nh=17) / Raw(b"x" * 64)
    packets.append((START_NS + 10**6, Ether() / alone))
    datagram = {"t": packets[-2][0], "from": end(A6), "to": end(B6), "bytes": len(text),
                "sha256": hashlib.sha256(text).hexdigest()}
    return ("fragments6.pcap", pcap(packets, 1, nano=True), len(packets), {"fragment-incomplete": 1},
            [], [datagram])


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, data, packets, skipped, connections, udp, *damage in files():
        (folder / name).write_bytes(data)
        description = {"file": name, "packets": packets, "skipped": skipped,
                       "connections": connections, "udp": udp}
        if damage:
            description["damage"] = {"at": damage[0], "what": "cut"}
        else:
            found = len(rdpcap(str(folder / name)))
            assert found == packets, f"{name}: scapy reads {found} packets, not {packets}"
        (folder / f"{name}.json").write_text(json.dumps(description, indent=1))
        print(name, packets)


main()
