//! The counters of an import: packets by outcome, and everything that is missing.

/// Why a packet was skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Skip {
    Arp,
    Icmp,
    Icmpv6,
    IpProtocol,
    Ethertype,
    Llc,
    Linktype,
    BadLength,
    CutHeader,
    FragmentIncomplete,
    Filtered,
}

impl Skip {
    const ALL: [(Self, &'static str); 11] = [
        (Self::Arp, "arp"),
        (Self::Icmp, "icmp"),
        (Self::Icmpv6, "icmpv6"),
        (Self::IpProtocol, "ip-protocol"),
        (Self::Ethertype, "ethertype"),
        (Self::Llc, "llc"),
        (Self::Linktype, "linktype"),
        (Self::BadLength, "bad-length"),
        (Self::CutHeader, "cut-header"),
        (Self::FragmentIncomplete, "fragment-incomplete"),
        (Self::Filtered, "filtered"),
    ];
}

/// Counters of an import.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// Packet records that are complete.
    pub packets: u64,
    skipped: [u64; Skip::ALL.len()],
    /// Records whose time is earlier than that of the previous record.
    pub time_backwards: u64,
    /// Records whose captured length exceeds their original length.
    pub caplen_over_len: u64,
    /// Records without a time.
    pub no_time: u64,
    /// Records whose time does not fit into 64 bits of nanoseconds.
    pub time_out_of_range: u64,
    pub tcp_connections: u64,
    pub udp_flows: u64,
    pub datagrams: u64,
    pub cut_datagrams: u64,
    pub data_bytes: u64,
    pub gaps: u64,
    pub gap_bytes_lost: u64,
    pub gap_bytes_cut: u64,
    /// Bytes dropped by the gap policy or by the filters for direction and connection.
    pub left_out_bytes: u64,
    /// Retransmitted bytes.
    pub resent_bytes: u64,
    /// Retransmitted bytes that could not be compared, because their first copy was no longer in
    /// memory.
    pub resent_bytes_unchecked: u64,
    pub conflicts: u64,
    pub conflict_bytes: u64,
    pub keep_alives: u64,
    pub ignored_after_fin: u64,
    pub ignored_after_reset: u64,
    /// Segments outside any possible TCP window.
    pub out_of_window: u64,
    /// Bytes before the first captured byte of a connection without SYN.
    pub before_start_bytes: u64,
    /// Gaps that were reported for lack of memory, before the other endpoint had acknowledged the
    /// bytes.
    pub gaps_forced: u64,
    /// Open connections and UDP flows that were dropped because too many were tracked. If they
    /// continue, they count as new ones.
    pub connections_evicted: u64,
}

impl Counts {
    /// Counts skipped packets.
    pub(crate) fn skip(&mut self, reason: Skip, packets: u64) {
        self.skipped[reason as usize] += packets;
    }

    /// Counts the records outside the time range as filtered. Of their other counters only those of
    /// the file itself are kept.
    pub(super) fn skip_all(&mut self, outside: &Self) {
        self.packets += outside.packets;
        self.skip(Skip::Filtered, outside.packets);
        self.time_backwards += outside.time_backwards;
        self.caplen_over_len += outside.caplen_over_len;
        self.no_time += outside.no_time;
        self.time_out_of_range += outside.time_out_of_range;
    }

    /// The reasons that occurred, with their numbers of packets.
    pub(crate) fn skipped(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Skip::ALL
            .iter()
            .map(|(reason, name)| (*name, self.skipped[*reason as usize]))
            .filter(|(_, packets)| *packets > 0)
    }

    /// Anomalies of the file, with their numbers of packets.
    pub(crate) fn odd(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("time-backwards", self.time_backwards),
            ("caplen-over-len", self.caplen_over_len),
            ("no-time", self.no_time),
            ("time-out-of-range", self.time_out_of_range),
        ]
        .into_iter()
        .filter(|(_, packets)| *packets > 0)
    }

    /// The counters of missing, retransmitted and unusual data that are not 0.
    pub(crate) fn losses(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("gaps", self.gaps),
            ("gap-bytes-lost", self.gap_bytes_lost),
            ("gap-bytes-cut", self.gap_bytes_cut),
            ("cut-datagrams", self.cut_datagrams),
            ("left-out-bytes", self.left_out_bytes),
            ("resent-bytes", self.resent_bytes),
            ("resent-bytes-unchecked", self.resent_bytes_unchecked),
            ("conflicts", self.conflicts),
            ("conflict-bytes", self.conflict_bytes),
            ("keep-alives", self.keep_alives),
            ("ignored-after-fin", self.ignored_after_fin),
            ("ignored-after-reset", self.ignored_after_reset),
            ("out-of-window", self.out_of_window),
            ("before-start-bytes", self.before_start_bytes),
            ("gaps-forced", self.gaps_forced),
            ("connections-evicted", self.connections_evicted),
        ]
        .into_iter()
        .filter(|(_, count)| *count > 0)
    }
}
