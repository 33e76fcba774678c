//! Tests from packets to events; [`super::testing`] describes the notation.

use super::testing::*;
use super::{Filter, GapPolicy};
use millstream_engine::capture::Direction;
use millstream_engine::env::random::SplitMix;
use std::collections::BTreeMap;

/// A client that sends two lines and receives one, and both endpoints close.
fn conversation() -> Vec<Vec<u8>> {
    vec![
        packet(false, 99, 0, SYN, b""),
        packet(true, 499, 100, SYN | ACK, b""),
        packet(false, 100, 500, ACK, b""),
        packet(false, 100, 500, ACK, b"one\n"),
        packet(true, 500, 104, ACK, b"two\n"),
        packet(false, 104, 504, ACK, b"three\n"),
        packet(false, 110, 504, ACK | FIN, b""),
        packet(true, 504, 111, ACK | FIN, b""),
    ]
}

const CONVERSATION: [&str; 7] = [
    "0 open 1000 2000",
    "0 in data 0 \"one\\n\"",
    "0 out data 0 \"two\\n\"",
    "0 in data 4 \"three\\n\"",
    "0 in HalfClose 10",
    "0 out HalfClose 4",
    "0 close",
];

#[test]
fn every_file_format_and_link_layer_gives_the_same_events() {
    let packets = conversation();
    for (is_big, is_ns) in [(false, false), (false, true), (true, false), (true, true)] {
        let file = Pcap { is_big, is_ns, ..Pcap::default() }.file(&packets);
        let found = import(&file);
        assert_eq!(found.lines, CONVERSATION);
        assert_eq!(found.times[1], 1_700_000_000_000_030_000);
    }
    for (is_big, resolution, ns) in [(false, 6, 3000), (true, 9, 3), (true, 0x80 | 10, 2_929_687)] {
        let found = import(&ng(is_big, 101, resolution, &packets));
        assert_eq!(found.lines, CONVERSATION);
        assert_eq!(found.times[1], ns);
    }
    type Wrap = fn(&[u8]) -> Vec<u8>;
    let links: [(u32, Wrap); 9] = [
        (1, |ip| ethernet(0x0800, ip)),
        (1, |ip| ethernet(0x88A8, &[&[0, 5, 0x81, 0, 0, 6, 8, 0], ip].concat())),
        (0, |ip| [&[2, 0, 0, 0], ip].concat()),
        (0, |ip| [&[0, 0, 0, 2], ip].concat()),
        (108, |ip| [&[0, 0, 0, 2], ip].concat()),
        (228, |ip| ip.to_vec()),
        (113, |ip| [&[0; 14][..], &[8, 0], ip].concat()),
        (276, |ip| [&[8, 0][..], &[0; 18], ip].concat()),
        // Each frame ends with a checksum of four bytes.
        (0x2400_0001, |ip| [&ethernet(0x0800, ip)[..], &[9; 4]].concat()),
    ];
    for (link, wrap) in links {
        let frames: Vec<Vec<u8>> = packets.iter().map(|packet| wrap(packet)).collect();
        let found = import(&Pcap { link, ..Pcap::default() }.file(&frames));
        assert_eq!(found.lines, CONVERSATION, "link type {link:#x}");
    }
}

#[test]
fn a_stream_is_whole_in_any_segment_order_and_across_sequence_number_wrap() {
    for seed in 0..60 {
        let mut dice = SplitMix(seed);
        let stream: Vec<u8> = (0..4000).map(|_| dice.below(256) as u8).collect();
        let first = 0u32.wrapping_sub(dice.below(5000) as u32);
        let mut packets = vec![packet(false, first.wrapping_sub(1), 0, SYN, b"")];
        packets.push(packet(true, 0, first, SYN | ACK, b""));
        let mut segments = Vec::new();
        let mut at = 0;
        while at < stream.len() {
            let end = (at + 1 + dice.below(200) as usize).min(stream.len());
            segments.push((at, end));
            // Some bytes are retransmitted with other segment boundaries.
            if dice.below(3) == 0 {
                segments.push((at.saturating_sub(dice.below(100) as usize), end));
            }
            at = end;
        }
        // Each segment moves by a few positions.
        for n in 0..segments.len() {
            let other = (n + dice.below(8) as usize).min(segments.len() - 1);
            segments.swap(n, other);
        }
        for (from, to) in segments {
            let seq = first.wrapping_add(from as u32);
            packets.push(packet(false, seq, 1, ACK, &stream[from..to]));
        }
        packets.push(packet(false, first.wrapping_add(4000), 1, ACK | FIN, b""));
        let found = import(&Pcap::default().file(&packets));
        assert!(found.streams[&(0, false)] == stream, "seed {seed}");
        let odd: Vec<_> =
            found.counts.losses().filter(|(name, _)| *name != "resent-bytes").collect();
        assert!(odd.iter().all(|(name, _)| *name == "keep-alives"), "seed {seed}: {odd:?}");
        assert_eq!(found.lines.last().unwrap(), "0 in HalfClose 4000", "seed {seed}");
    }
}

#[test]
fn an_acknowledged_hole_followed_by_data_is_a_gap() {
    let open = [packet(false, 9, 0, SYN, b""), packet(true, 0, 10, SYN | ACK, b"")];
    let lost = [
        packet(false, 10, 1, ACK, b"a\nbc"),
        packet(false, 20, 1, ACK, b"d\ne\n"),
        packet(true, 1, 24, ACK, b"ok"),
        packet(false, 24, 3, ACK, b"f\n"),
    ];
    let file = Pcap::default().file(&[&open[..], &lost].concat());
    let import = |policy| import_with(&file, Filter::default(), policy);
    let begin = ["0 open 1000 2000", "0 in data 0 \"a\\nbc\"", "0 in gap 4 6 lost"];
    for (policy, rest) in [
        (
            GapPolicy::Keep,
            &["0 in data 10 \"d\\ne\\n\"", "0 out data 0 \"ok\"", "0 in data 14 \"f\\n\""][..],
        ),
        (
            GapPolicy::Stop,
            &["0 in gap 10 4 skipped", "0 out data 0 \"ok\"", "0 in gap 14 2 skipped"],
        ),
        (
            GapPolicy::SkipLine,
            &[
                "0 in gap 10 2 skipped",
                "0 in data 12 \"e\\n\"",
                "0 out data 0 \"ok\"",
                "0 in data 14 \"f\\n\"",
            ],
        ),
    ] {
        assert_eq!(import(policy).unwrap().lines, [&begin[..], rest].concat(), "{policy:?}");
    }
    let super::Ended::Gap(what) = import(GapPolicy::Fail).err().unwrap() else { panic!() };
    assert!(what.contains("byte 4: 6 bytes are missing (lost)"), "{what}");
    // An acknowledgement that precedes its data in the file does not indicate a hole.
    let early =
        [&lost[..1], &[packet(true, 1, 20, ACK, b"")], &[packet(false, 14, 1, ACK, b"xxxxxx")]]
            .concat();
    let found = lines(&[&open[..], &early].concat());
    assert_eq!(found[1..], ["0 in data 0 \"a\\nbc\"", "0 in data 4 \"xxxxxx\""]);
}

#[test]
fn every_byte_of_a_lossy_capture_is_data_at_its_position_or_in_a_gap() {
    for seed in 0..80 {
        let mut dice = SplitMix(seed);
        let stream: Vec<u8> = (0..3000).map(|_| dice.below(256) as u8).collect();
        let first = 0u32.wrapping_sub(dice.below(4000) as u32);
        let open = [
            packet(false, first.wrapping_sub(1), 0, SYN, b""),
            packet(true, 0, first, SYN | ACK, b""),
        ];
        let (mut packets, mut at) = (open.to_vec(), 0);
        // For each byte of the stream, whether the file contains it, apart from the bytes that the
        // snap length cuts off.
        let mut is_there = vec![false; stream.len()];
        let snap = if dice.below(2) == 0 { 40 + 60 } else { 65_535 };
        while at < stream.len() {
            let end = (at + 1 + dice.below(150) as usize).min(stream.len());
            if dice.below(4) > 0 {
                let seq = first.wrapping_add(at as u32);
                packets.push(packet(false, seq, 1, ACK, &stream[at..end]));
                is_there[at..end.min(at + snap - 40)].fill(true);
            }
            // The server acknowledges everything, whatever the capture lacks.
            if dice.below(3) == 0 {
                packets.push(packet(true, 1, first.wrapping_add(end as u32), ACK, b""));
            }
            at = end;
        }
        packets.push(packet(false, first.wrapping_add(3000), 1, ACK | FIN, b""));
        packets.push(packet(true, 1, first.wrapping_add(3001), ACK, b""));
        let found = import(&Pcap { snap, ..Pcap::default() }.file(&packets));
        let wanted: Vec<u8> =
            stream.iter().zip(&is_there).filter(|(_, there)| **there).map(|(b, _)| *b).collect();
        assert!(found.streams.get(&(0, false)).unwrap_or(&Vec::new()) == &wanted, "seed {seed}");
        let missing = is_there.iter().filter(|there| !**there).count() as u64;
        let counts = &found.counts;
        assert_eq!(counts.gap_bytes_lost + counts.gap_bytes_cut, missing, "seed {seed}");
        assert_eq!(counts.conflicts + counts.gaps_forced, 0, "seed {seed}");
        // Each event begins where the previous one ended.
        let mut place = 0;
        for line in found.lines.iter().filter(|line| line.starts_with("0 in ")) {
            let words: Vec<&str> = line.split(' ').collect();
            assert_eq!(words[3], place.to_string(), "seed {seed}: {line}");
            match words[2] {
                "gap" => place += words[4].parse::<usize>().unwrap(),
                "data" => place += found.data_bytes(line),
                _ => assert_eq!(place, 3000),
            }
        }
    }
}

#[test]
fn connections_open_and_end_in_every_way() {
    let syn = packet(false, 9, 0, SYN, b"");
    let answer = packet(true, 0, 10, SYN | ACK, b"");
    let data = packet(false, 10, 1, ACK, b"x");
    for (what, packets, wanted) in [
        (
            "refused",
            vec![syn.clone(), packet(true, 0, 10, RST | ACK, b"")],
            &["0 open 1000 2000", "0 out Reset 0", "0 close"][..],
        ),
        (
            "reset in the middle, with data behind it",
            vec![
                syn.clone(),
                answer.clone(),
                data.clone(),
                packet(true, 1, 11, RST | ACK, b""),
                packet(false, 11, 1, ACK, b"yz"),
            ],
            &[
                "0 open 1000 2000",
                "0 in data 0 \"x\"",
                "0 out Reset 0",
                "0 close",
                "0 in AfterReset 2",
            ],
        ),
        (
            "only the answer to the SYN",
            vec![answer.clone(), data.clone()],
            &["0 open 1000 2000", "0 in data 0 \"x\""],
        ),
        (
            "in the middle of it",
            vec![packet(true, 77, 10, ACK, b"x"), packet(false, 10, 78, ACK, b"y")],
            &["0 open 2000 1000", "0 in data 0 \"x\"", "0 out data 0 \"y\""],
        ),
        (
            "SYNs that cross",
            vec![
                syn.clone(),
                packet(true, 0, 0, SYN, b""),
                packet(true, 0, 10, SYN | ACK, b""),
                packet(false, 9, 1, SYN | ACK, b""),
                data.clone(),
            ],
            &["0 open 1000 2000", "0 in data 0 \"x\""],
        ),
        (
            "a SYN again, and one with another number",
            vec![
                syn.clone(),
                syn.clone(),
                answer.clone(),
                data.clone(),
                packet(false, 5000, 0, SYN, b""),
                packet(false, 5001, 1, ACK, b"y"),
            ],
            &["0 open 1000 2000", "0 in data 0 \"x\"", "1 open 1000 2000", "1 in data 0 \"y\""],
        ),
        (
            "data with the SYN, and again",
            vec![packet(false, 9, 0, SYN, b"x"), packet(true, 0, 10, SYN | ACK, b""), data.clone()],
            &["0 open 1000 2000", "0 in data 0 \"x\""],
        ),
        (
            "data behind the FIN",
            vec![
                syn.clone(),
                answer.clone(),
                packet(false, 10, 1, ACK | FIN, b"x"),
                packet(false, 11, 1, ACK, b"yz"),
            ],
            &["0 open 1000 2000", "0 in data 0 \"x\"", "0 in HalfClose 1", "0 in AfterFin 2"],
        ),
        (
            "a FIN before the data in front of it",
            vec![syn.clone(), answer.clone(), packet(false, 11, 1, ACK | FIN, b""), data.clone()],
            &["0 open 1000 2000", "0 in data 0 \"x\"", "0 in HalfClose 1"],
        ),
        (
            "keep-alives, with a byte that is not the stream's",
            vec![
                syn.clone(),
                answer,
                packet(false, 9, 1, ACK, b"\0"),
                data,
                packet(false, 10, 1, ACK, b"\0"),
                packet(false, 10, 1, ACK, b""),
            ],
            &["0 open 1000 2000", "0 in data 0 \"x\""],
        ),
    ] {
        assert_eq!(lines(&packets), wanted, "{what}");
    }
}

#[test]
fn different_bytes_at_one_position_are_a_conflict_and_the_first_are_kept() {
    let found = lines(&[
        packet(false, 9, 0, SYN, b""),
        packet(true, 0, 10, SYN | ACK, b""),
        packet(false, 10, 1, ACK, b"abcd"),
        packet(false, 10, 1, ACK, b"abXYef"),
        packet(false, 20, 1, ACK, b"klm"),
        packet(false, 16, 1, ACK, b"ghijkLmno"),
    ]);
    assert_eq!(
        found,
        [
            "0 open 1000 2000",
            "0 in data 0 \"abcd\"",
            "0 in conflict 2 2",
            "0 in data 4 \"ef\"",
            "0 in conflict 11 1",
            "0 in data 6 \"ghij\"",
            "0 in data 10 \"klm\"",
            "0 in data 13 \"no\"",
        ]
    );
}

#[test]
fn bytes_cut_by_the_snap_length_are_a_gap_unless_retransmitted() {
    let open = [packet(false, 9, 0, SYN, b""), packet(true, 0, 10, SYN | ACK, b"")];
    let cut = [
        packet(false, 10, 1, ACK, b"0123456789"),
        packet(true, 1, 20, ACK, b""),
        packet(false, 20, 1, ACK, b"abc"),
    ];
    let snap = Pcap { snap: 44, ..Pcap::default() };
    let found = import(&snap.file(&[&open[..], &cut].concat()));
    assert_eq!(
        found.lines[1..],
        ["0 in data 0 \"0123\"", "0 in gap 4 6 cut", "0 in data 10 \"abc\""]
    );
    let again =
        [cut[0].clone(), packet(false, 14, 1, ACK, b"4567"), packet(false, 18, 1, ACK, b"89")];
    let found = import(&snap.file(&[&open[..], &again].concat()));
    assert_eq!(found.streams[&(0, false)], b"0123456789");
    let datagram = ipv4(17, &udp((5, 6), b"0123456789abcdefghi"));
    let found = import(&snap.file(&[datagram]));
    assert_eq!(found.lines[1..], ["0 in data 0 \"0123456789abcdef\"", "0 in gap 16 3 cut"]);
}

#[test]
fn fragments_are_reassembled_in_any_order_and_counted_if_one_is_missing() {
    let payload = udp((5, 6), &(0..300u32).map(|n| n as u8).collect::<Vec<_>>());
    let (from, to) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    let part = |id, a: usize, b: usize| {
        let more = if b < payload.len() { 0x2000 } else { 0 };
        ipv4_fragment(17, id, (a / 8) as u16 | more, &payload[a..b], from, to)
    };
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]] {
        let parts = [part(1, 0, 104), part(1, 96, 200), part(1, 200, 308)];
        let mut packets: Vec<_> = order.iter().map(|n| parts[*n].clone()).collect();
        // The first fragment is sent twice, the second time too late to matter.
        packets.push(parts[0].clone());
        let found = import(&Pcap::default().file(&packets));
        assert_eq!(found.streams[&(0, false)], payload[8..], "{order:?}");
        assert_eq!(found.counts.skipped().count(), 0, "{order:?}");
    }
    let incomplete = [part(1, 0, 104), part(1, 200, 308), part(2, 0, 104)];
    let found = import(&Pcap::default().file(&incomplete));
    assert_eq!(found.counts.skipped().collect::<Vec<_>>(), [("fragment-incomplete", 3)]);
    // Fragments with the same id that are minutes apart do not belong to one datagram.
    let late = Pcap { step_us: 300_000_000, ..Pcap::default() };
    let found = import(&late.file(&[part(1, 0, 104), part(1, 104, 308)]));
    assert_eq!(found.counts.skipped().collect::<Vec<_>>(), [("fragment-incomplete", 2)]);
}

#[test]
fn extension_headers_of_ipv6_are_walked() {
    let datagram = udp((5, 6), b"hello");
    let options = |next: u8| [&[next, 0][..], &[0; 6]].concat();
    let atomic = [&[17, 0, 0, 0, 0, 0, 0, 9][..], &datagram].concat();
    for (next, payload) in [
        (17, datagram.clone()),
        (0, [&options(17)[..], &datagram].concat()),
        (0, [&options(60)[..], &options(43), &options(17), &datagram].concat()),
        (51, [&[17, 0][..], &[0; 6], &datagram].concat()),
        (44, atomic),
    ] {
        let found = import(&Pcap::default().file(&[ipv6(next, &payload)]));
        assert_eq!(found.lines.last().unwrap(), "0 in data 0 \"hello\"");
    }
    let first = [&[60, 0, 0, 1, 0, 0, 0, 9][..], &options(17), &datagram[..8]].concat();
    let second = [&[60, 0, 0, 16, 0, 0, 0, 9][..], &datagram[8..]].concat();
    let found = import(&Pcap::default().file(&[ipv6(44, &second), ipv6(44, &first)]));
    assert_eq!(found.lines.last().unwrap(), "0 in data 0 \"hello\"");
}

#[test]
fn filters_skip_packets_and_count_them() {
    let mut packets = conversation();
    packets.push(ipv4(17, &udp((53, 54), b"dns")));
    let file = Pcap::default().file(&packets);
    let import = |filter| import_with(&file, filter, GapPolicy::Keep).unwrap();
    let found = import(Filter { ports: vec![54], ..Filter::default() });
    assert_eq!(found.lines, ["0 open 53 54", "0 in data 0 \"dns\""]);
    assert_eq!(found.counts.skipped().collect::<Vec<_>>(), [("filtered", 8)]);
    let host = ["10.0.0.3".parse().unwrap()].to_vec();
    assert!(import(Filter { hosts: host, ..Filter::default() }).lines.is_empty());
    let found = import(Filter { protocol: Some(17), ..Filter::default() });
    assert_eq!(found.lines.len(), 2);
    let direction = Some(millstream_engine::capture::Direction::Out);
    let found = import(Filter { direction, connections: vec![0], ..Filter::default() });
    assert_eq!(
        found.lines,
        ["0 open 1000 2000", "0 out data 0 \"two\\n\"", "0 out HalfClose 4", "0 close"]
    );
    let from_ns = Some(1_700_000_000_000_050_000);
    let found = import(Filter { from_ns, protocol: Some(6), ..Filter::default() });
    assert_eq!(found.lines[..2], ["0 open 1000 2000", "0 in data 4 \"three\\n\""]);
}

/// The events of `found` in a range of times. A connection that was opened earlier is opened with its
/// first event in the range.
fn in_range(found: &Found, from_ns: i64, to_ns: i64) -> Vec<String> {
    let (mut lines, mut unopened) = (Vec::new(), BTreeMap::<&str, &String>::new());
    for (line, at_ns) in found.lines.iter().zip(&found.times) {
        let connection = line.split(' ').next().unwrap();
        let is_open = line.split(' ').nth(1) == Some("open");
        if (from_ns..to_ns).contains(at_ns) {
            lines.extend(unopened.remove(connection).filter(|_| !is_open).cloned());
            lines.push(line.clone());
        } else if is_open {
            unopened.insert(connection, line);
        }
    }
    lines
}

#[test]
fn a_range_of_times_has_the_events_that_the_whole_import_has_in_it() {
    let mut packets = conversation();
    packets.extend([
        ipv4(17, &udp((53, 54), b"dns")),
        // Another connection of the same endpoints, with a gap, data out of order and a fragment.
        packet(false, 2_000_099, 0, SYN, b""),
        packet(true, 3_000_499, 2_000_100, SYN | ACK, b""),
        packet(true, 3_000_503, 2_000_100, ACK, b"two\n"),
        packet(false, 2_000_110, 3_000_500, ACK, b"after a gap\n"),
        packet(true, 3_000_500, 2_000_122, ACK, b"one"),
        ipv4_fragment(
            17,
            9,
            0x2000,
            &udp((53, 54), b"fragment")[..8],
            [10, 0, 0, 1],
            [10, 0, 0, 2],
        ),
        ipv4_fragment(17, 9, 1, b"fragment", [10, 0, 0, 1], [10, 0, 0, 2]),
        packet(true, 3_000_507, 2_000_122, ACK | FIN, b""),
        ipv4(17, &udp((54, 53), b"answer")),
    ]);
    let file = Pcap::default().file(&packets);
    let whole = import(&file);
    let at = |packet: usize| 1_700_000_000_000_000_000 + packet as i64 * 10_000;
    for from in 0..packets.len() {
        for to in from..=packets.len() {
            let (from_ns, to_ns) = (Some(at(from)), Some(at(to)));
            let filter = Filter { from_ns, to_ns, ..Filter::default() };
            let found = import_with(&file, filter, GapPolicy::Keep).unwrap();
            assert_eq!(found.lines, in_range(&whole, at(from), at(to)), "packets {from} to {to}");
            assert_eq!(found.counts.packets, packets.len() as u64);
            let data = found.lines.iter().filter(|line| line.contains(" data "));
            let bytes: usize = data.map(|line| found.data_bytes(line)).sum();
            assert_eq!(found.counts.data_bytes, bytes as u64);
        }
    }
}

#[test]
fn a_range_of_times_keeps_client_and_server() {
    // It begins with a packet of the server.
    let from_ns = Some(1_700_000_000_000_040_000);
    let file = Pcap::default().file(&conversation());
    let filter = Filter { from_ns, ..Filter::default() };
    let found = import_with(&file, filter, GapPolicy::Keep).unwrap();
    let expected = ["0 open 1000 2000", "0 out data 0 \"two\\n\"", "0 in data 4 \"three\\n\""];
    assert_eq!(found.lines[..3], expected);
    assert_eq!(found.counts.skipped().collect::<Vec<_>>(), [("filtered", 4)]);
}

#[test]
fn a_gap_outside_the_range_of_times_does_not_fail_the_import() {
    let packets = [
        packet(false, 99, 0, SYN, b""),
        packet(false, 200, 500, ACK, b"late\n"),
        packet(true, 500, 205, ACK, b""),
        packet(false, 205, 500, ACK, b"line\n"),
    ];
    let file = Pcap::default().file(&packets);
    let from_ns = Some(1_700_000_000_000_030_000);
    for policy in [GapPolicy::Fail, GapPolicy::Stop] {
        let filter = Filter { from_ns, ..Filter::default() };
        let found = import_with(&file, filter, policy).unwrap();
        assert_eq!(found.lines[1], "0 in data 105 \"line\\n\"");
    }
    assert!(import_with(&file, Filter::default(), GapPolicy::Fail).is_err());
}

#[test]
fn a_truncated_file_gives_the_events_before_the_cut_and_reports_its_offset() {
    for file in [Pcap::default().file(&conversation()), ng(false, 101, 6, &conversation())] {
        let whole = import(&file).lines;
        for length in 0..file.len() {
            let found = import(&file[..length]);
            let same = found.lines.iter().zip(&whole).take_while(|(a, b)| a == b).count();
            assert!(same + 1 >= found.lines.len(), "cut at {length}: {:?}", found.lines);
            match found.damage {
                Some(damage) => assert!(damage.at <= length as u64),
                None => assert!(length >= 24, "nothing said of a cut at {length}"),
            }
        }
    }
}

#[test]
fn a_changed_byte_never_panics_or_adds_data() {
    let fragment = ipv4_fragment(17, 3, 0x2000, &[7; 16], [1; 4], [2; 4]);
    let extra = [ipv6(44, &[17, 0, 0, 1, 0, 0, 0, 9, 1, 1, 1, 1, 1, 1, 1, 1]), fragment];
    let packets = [conversation(), extra.to_vec()].concat();
    let frames: Vec<_> = packets.iter().map(|packet| ethernet(0x0800, packet)).collect();
    for file in [
        Pcap { link: 1, ..Pcap::default() }.file(&frames),
        Pcap { is_big: true, ..Pcap::default() }.file(&packets),
        ng(true, 101, 9, &packets),
    ] {
        for at in 0..file.len() {
            for value in [0, 1, 0x7F, 0x80, 0xFF, !file[at]] {
                let mut file = file.clone();
                file[at] = value;
                let found = import(&file);
                assert!(found.counts.data_bytes <= file.len() as u64);
            }
        }
    }
}

#[test]
fn connections_beyond_those_that_fit_are_dropped_and_counted() {
    let mut packets = Vec::new();
    for n in 0..40_000u32 {
        let from = [10, (n >> 16) as u8, (n >> 8) as u8, n as u8];
        let segment = tcp(false, 9, 0, SYN, b"x");
        packets.push(ipv4_fragment(6, 7, 0, &segment, from, [10, 255, 0, 1]));
    }
    let found = import(&Pcap::default().file(&packets));
    assert_eq!(found.counts.tcp_connections, 40_000);
    assert!(found.counts.connections_evicted > 0);
    assert_eq!(found.counts.data_bytes, 40_000);
}

#[test]
fn a_flow_of_datagrams_that_is_dropped_is_closed() {
    let packets = (0..40_000u32).map(|n| {
        let from = [10, (n >> 16) as u8, (n >> 8) as u8, n as u8];
        ipv4_fragment(17, 7, 0, &udp((5, 6), b"x"), from, [10, 255, 0, 1])
    });
    let found = import(&Pcap::default().file(&packets.collect::<Vec<_>>()));
    let evicted = found.counts.connections_evicted as usize;
    assert!(found.counts.udp_flows == 40_000 && evicted > 0);
    let ends_of = |n: usize| {
        let close = format!("{n} close");
        found.lines.iter().filter(|line| line.starts_with(&close)).count()
    };
    let last_open = found.lines.iter().position(|line| line.starts_with("39999 ")).unwrap();
    let closed = found.lines[..last_open].iter().filter(|line| line.contains(" close"));
    assert_eq!(closed.count(), evicted, "they are closed when they are dropped");
    assert_eq!((ends_of(0), ends_of(39_999)), (1, 0), "the last one is still open");
}

#[test]
fn bytes_buffered_after_holes_are_bounded() {
    // The capture has a hole that is never acknowledged, and after it more data than the reassembly
    // buffers.
    let mut packets = vec![packet(false, 9, 0, SYN, b""), packet(true, 0, 10, SYN | ACK, b"")];
    for n in 0..6_000u32 {
        packets.push(packet(false, 11 + n * 1000, 1, ACK, &[b'x'; 1000]));
    }
    let found = import(&Pcap::default().file(&packets));
    assert!(found.counts.gaps_forced == 1 && found.counts.gap_bytes_lost == 1);
    assert_eq!(found.streams[&(0, false)].len(), 6_000_000);
}

#[test]
fn a_gap_that_is_not_selected_counts_nothing_and_fails_nothing() {
    let packets = [
        packet(false, 9, 0, SYN, b""),
        packet(true, 0, 10, SYN | ACK, b""),
        packet(false, 10, 1, ACK, b"ask\n"),
        packet(true, 1, 14, ACK, b"a"),
        packet(true, 12, 14, ACK, b"b\n"),
        packet(false, 14, 14, ACK, b"more\n"),
    ];
    let file = Pcap::default().file(&packets);
    let filter = |direction| Filter { direction: Some(direction), ..Filter::default() };
    let found = import_with(&file, filter(Direction::In), GapPolicy::Fail).unwrap();
    assert_eq!(found.lines[1..], ["0 in data 0 \"ask\\n\"", "0 in data 4 \"more\\n\""]);
    assert!(import_with(&file, filter(Direction::Out), GapPolicy::Fail).is_err());
}
