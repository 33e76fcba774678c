//! Reads packet captures and passes the events of their connections to a sink.

use super::connections::{Connections, Generations, Tcp, Tuple};
use super::counts::{Counts, Skip};
use super::filter::Filter;
use super::fragments::Fragments;
use super::ip::{self, Addresses, Carried};
use super::output::{Ended, EventSink, GapPolicy, Lane, Output};
use super::records::{FileDamage, Record, Records};
use super::{Part, be16, link};
use millstream_engine::capture::{Direction, Opener, Protocol};
use std::io::Read;

/// Number of packets between two calls of the progress function.
const PROGRESS_PACKETS: u64 = 4096;

/// The progress of an import.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// Number of bytes read from the current file, after decompression.
    pub file_bytes: u64,
    /// Number of packets of all files so far.
    pub packets: u64,
    /// Number of payload bytes of all files so far.
    pub data_bytes: u64,
}

/// A UDP flow: the datagrams between two endpoints, each an address and a port.
#[derive(Clone, Copy)]
struct Flow {
    /// The number of the connection that stands for the flow in the capture.
    number: u32,
    /// Whether endpoint A, the sender of the flow's first datagram, is the `low` end of the flow's
    /// [`Tuple`].
    a_is_low: bool,
}

/// An import of one or more files.
pub(crate) struct Importer<S> {
    out: Output<S>,
    connections: Connections,
    fragments: Fragments,
    flows: Generations<u32>,
    /// The flows by their index in `flows`: the flow, and the number of bytes so far in each
    /// direction.
    flow_slots: Vec<(Flow, [u64; 2])>,
    free_flows: Vec<u32>,
    next_number: u32,
    /// Time of the previous record that has one.
    last_ns: Option<i64>,
    /// Time of the first record that has one.
    start_ns: Option<i64>,
}

impl<S: EventSink> Importer<S> {
    pub(crate) fn new(sink: S, filter: Filter, policy: GapPolicy) -> Self {
        Self {
            out: Output::new(sink, filter, policy),
            connections: Connections::default(),
            fragments: Fragments::default(),
            flows: Generations::default(),
            flow_slots: Vec::new(),
            free_flows: Vec::new(),
            next_number: 0,
            last_ns: None,
            start_ns: None,
        }
    }

    /// The number of packets of all files so far.
    pub(crate) fn packets(&self) -> u64 {
        self.out.packets()
    }

    /// Reads a file to its end, or to its first damage, which is returned. `progress` is called
    /// after every [`PROGRESS_PACKETS`] packets, and ends the reading of the file by returning
    /// false.
    pub(crate) fn read(
        &mut self,
        input: impl Read,
        mut progress: impl FnMut(Progress) -> bool,
    ) -> Result<Option<FileDamage>, Ended> {
        let mut records = match Records::new(input) {
            Ok(records) => records,
            Err(damage) => return Ok(Some(damage)),
        };
        self.out.sink.begin_file(records.precision_ns());
        loop {
            match records.next_record() {
                Ok(Some(record)) => self.record(&record)?,
                Ok(None) => return Ok(None),
                Err(damage) => return Ok(Some(damage)),
            }
            let packets = self.out.packets();
            if packets.is_multiple_of(PROGRESS_PACKETS) {
                let data_bytes = self.out.data_bytes();
                if !progress(Progress { file_bytes: records.offset(), packets, data_bytes }) {
                    return Ok(None);
                }
            }
        }
    }

    /// Ends the import, and reports the bytes that are missing at the end of the files. Returns the
    /// sink and the counters.
    pub(crate) fn finish(mut self) -> Result<(S, Counts), Ended> {
        self.fragments.finish(&mut self.out.counts);
        self.connections.finish(&mut self.out)?;
        Ok(self.out.finish())
    }

    fn record(&mut self, record: &Record<'_>) -> Result<(), Ended> {
        let last_ns = self.last_ns;
        if let Some(wall_ns) = record.wall_ns {
            self.last_ns = Some(wall_ns);
            self.out.wall_ns = wall_ns;
            let start_ns = *self.start_ns.get_or_insert(wall_ns);
            let since = u64::try_from(wall_ns.saturating_sub(start_ns)).unwrap_or(0);
            self.out.mono_ns = self.out.mono_ns.max(since);
        }
        self.out.begin_record();
        let counts = &mut self.out.counts;
        counts.caplen_over_len += u64::from(record.is_over);
        counts.time_out_of_range += u64::from(record.is_clamped);
        match record.wall_ns {
            Some(wall_ns) => {
                counts.time_backwards += u64::from(last_ns.is_some_and(|last| wall_ns < last));
            }
            None => counts.no_time += 1,
        }
        let decoded = link::packet(record.link, record.frame).and_then(ip::decode);
        match decoded {
            Ok((addresses, carried)) => self.carried(addresses, carried),
            Err(reason) => {
                self.out.counts.skip(reason, 1);
                Ok(())
            }
        }
    }

    fn carried(&mut self, addresses: Addresses, carried: Carried<'_>) -> Result<(), Ended> {
        let fragment = match carried {
            Carried::Payload { protocol, part } => return self.payload(&addresses, protocol, part),
            Carried::Fragment(fragment) => fragment,
        };
        let now_ns = self.out.wall_ns;
        let Some(whole) = self.fragments.add(addresses, &fragment, now_ns, &mut self.out.counts)
        else {
            return Ok(());
        };
        if !addresses.is_v6 {
            return self.payload(&addresses, whole.protocol, whole.part());
        }
        match ip::extensions(whole.protocol, whole.part()) {
            Ok(Carried::Payload { protocol, part }) => self.payload(&addresses, protocol, part),
            // Only forged packets have fragments inside fragments.
            Ok(Carried::Fragment(_)) => {
                self.out.counts.skip(Skip::IpProtocol, 1);
                Ok(())
            }
            Err(reason) => {
                self.out.counts.skip(reason, 1);
                Ok(())
            }
        }
    }

    fn payload(&mut self, at: &Addresses, protocol: u8, part: Part<'_>) -> Result<(), Ended> {
        let skipped = match protocol {
            6 => match Tcp::decode(part) {
                Ok((ports, packet)) if self.out.filter.takes_packet(6, at, ports) => {
                    let (tuple, is_low) = Tuple::new(at, ports);
                    let next = &mut self.next_number;
                    return self.connections.packet(tuple, is_low, &packet, next, &mut self.out);
                }
                Ok(_) => Skip::Filtered,
                Err(reason) => reason,
            },
            17 => match datagram(part) {
                Ok((ports, data)) if self.out.filter.takes_packet(17, at, ports) => {
                    return self.datagram(at, ports, data);
                }
                Ok(_) => Skip::Filtered,
                Err(reason) => reason,
            },
            1 => Skip::Icmp,
            58 => Skip::Icmpv6,
            _ => Skip::IpProtocol,
        };
        self.out.counts.skip(skipped, 1);
        Ok(())
    }

    fn datagram(&mut self, at: &Addresses, ports: (u16, u16), data: Part<'_>) -> Result<(), Ended> {
        let (tuple, is_low) = Tuple::new(at, ports);
        let slot = match self.flows.get(&tuple) {
            Some(slot) => slot,
            None => self.begin_flow(tuple, is_low)?,
        };
        let (flow, bytes) = &mut self.flow_slots[slot as usize];
        let from_b = is_low != flow.a_is_low;
        let direction = if from_b { Direction::Out } else { Direction::In };
        let lane = Lane { connection: flow.number, direction };
        let place = bytes[usize::from(from_b)];
        bytes[usize::from(from_b)] += data.length as u64;
        self.out.datagram(lane, place, data.data, data.length)
    }

    fn begin_flow(&mut self, tuple: Tuple, is_low: bool) -> Result<u32, Ended> {
        let flow = Flow { number: self.next_number, a_is_low: is_low };
        self.next_number += 1;
        self.out.open(flow.number, &tuple.info(Protocol::Udp, Opener::A, is_low), false)?;
        let slot = self.free_flows.pop().unwrap_or(self.flow_slots.len() as u32);
        match self.flow_slots.get_mut(slot as usize) {
            Some(free) => *free = (flow, [0; 2]),
            None => self.flow_slots.push((flow, [0; 2])),
        }
        let forgotten = self.flows.insert(tuple, slot);
        self.out.counts.connections_evicted += forgotten.len() as u64;
        for slot in forgotten {
            self.out.close(self.flow_slots[slot as usize].0.number)?;
            self.free_flows.push(slot);
        }
        Ok(slot)
    }
}

/// Decodes a UDP header: the ports and the datagram.
fn datagram(part: Part<'_>) -> Result<((u16, u16), Part<'_>), Skip> {
    let header = part.head(8)?;
    let length = usize::from(be16(header, 4));
    if length < 8 || length > part.length {
        return Err(Skip::BadLength);
    }
    Ok(((be16(header, 0), be16(header, 2)), part.first(length).after(8)))
}
