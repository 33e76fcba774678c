//! Tests of `import-pcap`, `export` and `inspect` on the command line.
//!
//! If `MILLSTREAM_CAPTURES` is a folder of packet captures, each with a `NAME.json` that describes
//! its content, the last tests compare every one. Otherwise they do nothing. A file `expected.json`
//! describes the streams of several captures as TShark follows them.

mod common;

use common::Scratch;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

fn millstream(args: &[&str]) -> Output {
    common::millstream().args(args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A pcap file of raw IPv4 with UDP datagrams from port 1000 to port 2000, one per millisecond.
fn datagrams(texts: &[&str]) -> Vec<u8> {
    let mut file = [0xA1B2_C3D4u32, 0x0004_0002, 0, 0, 65_535, 101].map(u32::to_le_bytes).concat();
    for (n, text) in texts.iter().enumerate() {
        let length = text.len() as u16;
        let mut packet = vec![0x45, 0];
        packet.extend((length + 28).to_be_bytes());
        packet.extend([0, 1, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        packet.extend([1000u16, 2000, length + 8, 0].map(u16::to_be_bytes).concat());
        packet.extend(text.as_bytes());
        let record = [1_700_000_000, n as u32 * 1000, packet.len() as u32, packet.len() as u32];
        file.extend(record.map(u32::to_le_bytes).concat());
        file.extend(packet);
    }
    file
}

#[test]
fn a_packet_capture_is_imported_inspected_and_exported_and_imported_again() {
    let scratch = Scratch::new("captures-round");
    let (pcap, capture) = (scratch.file("lines.pcap"), scratch.file("lines.capture"));
    std::fs::write(&pcap, datagrams(&["one\n", "two\nthr", "ee\n"])).unwrap();
    let [pcap, capture] = [&pcap, &capture].map(|path| path.to_str().unwrap());
    for compress in [&[][..], &["--compress"]] {
        let args = [&["import-pcap", pcap, "-o", capture, "--force"], compress].concat();
        let report = stdout(&millstream(&args));
        assert!(report.contains("UDP datagrams            3 in 1 flows"), "{report}");
        let shown = stdout(&millstream(&["inspect", capture]));
        for part in [
            "version 2",
            "packet capture, to 1.0 us",
            "connections  1",
            "bytes in     14 B",
            "192.0.2.1:1000 > 192.0.2.2:2000",
            "damage       none",
            "2023-11-14 22:13:20.002Z, after 2.0 ms",
        ] {
            assert!(shown.contains(part), "{part}\n{shown}");
        }
        let text = stdout(&millstream(&["export", capture, "--format", "text"]));
        assert_eq!(text, "one\ntwo\nthree\n");
    }
    let json = stdout(&millstream(&["export", capture]));
    let again = scratch.file("again.pcapng");
    let again = again.to_str().unwrap();
    stdout(&millstream(&["export", capture, "--format", "pcapng", "-o", again]));
    stdout(&millstream(&["import-pcap", again, "-o", capture, "--force"]));
    let events = |json: &str| {
        json.lines()
            .filter(|line| !line.contains("\"note\""))
            .map(str::to_string)
            .collect::<Vec<_>>()
    };
    let second = stdout(&millstream(&["export", capture]));
    assert_eq!(events(&second), events(&json));
    let part = stdout(&millstream(&[
        "export",
        capture,
        "--from",
        "2023-11-14T22:13:20.001Z",
        "--to-time",
        "2023-11-14T22:13:20.002Z",
    ]));
    assert_eq!(events(&part).len(), 1, "{part}");
}

/// The connection's open event is before the selection, and tells its protocol and addresses.
/// What a pipe contains can be read only once.
#[cfg(unix)]
#[test]
fn a_packet_capture_is_imported_from_a_pipe() {
    use std::io::Write;
    use std::process::Stdio;
    let scratch = Scratch::new("captures-pipe");
    let capture = scratch.file("lines.capture").to_str().unwrap().to_string();
    let mut import = common::millstream()
        .args(["import-pcap", "/dev/stdin", "-o", &capture])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    import.stdin.take().unwrap().write_all(&datagrams(&["one\n", "two\n"])).unwrap();
    stdout(&import.wait_with_output().unwrap());
    let text = stdout(&millstream(&["export", &capture, "--format", "text"]));
    assert_eq!(text, "one\ntwo\n");
}

#[test]
fn a_part_of_a_flow_of_datagrams_is_replayed_and_exported_as_datagrams() {
    let scratch = Scratch::new("captures-part");
    let files = ["lines.pcap", "lines.capture", "part.pcapng", "part.capture"];
    let files = files.map(|name| scratch.file(name).to_str().unwrap().to_string());
    let [pcap, capture, part, again] = files.each_ref().map(String::as_str);
    std::fs::write(pcap, datagrams(&["one\n", "two\nthr", "ee\n"])).unwrap();
    stdout(&millstream(&["import-pcap", pcap, "-o", capture]));
    let from = ["--from", "2023-11-14T22:13:20.001Z"];

    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let to = socket.local_addr().unwrap().to_string();
    stdout(&millstream(&[&["replay", capture, "--to", &to, "--speed", "max"], &from[..]].concat()));
    for wanted in ["two\nthr", "ee\n"] {
        let mut buffer = [0; 100];
        let bytes = socket.recv(&mut buffer).unwrap();
        assert_eq!(std::str::from_utf8(&buffer[..bytes]), Ok(wanted));
    }

    let export = ["export", capture, "--format", "pcapng", "-o", part];
    stdout(&millstream(&[&export[..], &from].concat()));
    stdout(&millstream(&["import-pcap", part, "-o", again]));
    let json = stdout(&millstream(&["export", again]));
    let events: Vec<&str> = json.lines().filter(|line| !line.contains("\"note\"")).collect();
    assert!(events[0].contains(r#""protocol":"udp","a":"192.0.2.1:1000""#), "{json}");
    assert_eq!(events.iter().filter(|line| line.contains("\"text\"")).count(), 2, "{json}");
    let shown = stdout(&millstream(&[&["export", capture], &from[..]].concat()));
    assert!(!shown.contains("open"), "an event before the selection is not shown: {shown}");
}

#[test]
fn no_command_overwrites_a_file_unless_it_is_forced_to() {
    let scratch = Scratch::new("captures-overwrite");
    let file = |name: &str| scratch.file(name);
    let whole = file("lines.capture").to_str().unwrap().to_string();
    let record = |more: &[&str]| {
        let args = ["capture", "--listen", "127.0.0.1:0", "--for", "1ms", "-o", &whole];
        millstream(&[&args[..], more].concat())
    };
    // Another recording's second file, and files that only look like one.
    for name in ["lines.capture", "lines.00001.capture", "other.00000.capture", "lines.1.capture"] {
        std::fs::write(file(name), name).unwrap();
    }
    for (more, existing) in
        [(&[][..], "lines.capture"), (&["--rotate-time", "1s"], "lines.00001.capture")]
    {
        let output = record(more);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains("OUTPUT_EXISTS") && error.contains(existing), "{error}");
        assert_eq!(std::fs::read_to_string(file(existing)).unwrap(), existing);
    }
    std::fs::remove_file(file("lines.00001.capture")).unwrap();
    stdout(&record(&["--rotate-time", "1s"]));
    stdout(&record(&["--force"]));
    stdout(&millstream(&["inspect", &whole]));

    // Import and export: an existing file, the second file of a rotated import, and the input.
    let (pcap, out) = (file("packets.pcapng"), file("out.capture"));
    let (pcap, out) = (pcap.to_str().unwrap(), out.to_str().unwrap());
    stdout(&millstream(&["export", &whole, "--format", "pcapng", "-o", pcap]));
    for command in [&["import-pcap", pcap, "-o", out][..], &["export", &whole, "-o", out]] {
        std::fs::write(out, "before").unwrap();
        let output = millstream(command);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains("OUTPUT_EXISTS") && error.contains("--force"), "{error}");
        assert_eq!(std::fs::read_to_string(out).unwrap(), "before");
        stdout(&millstream(&[command, &["--force"]].concat()));
        assert_ne!(std::fs::read_to_string(out).unwrap_or_default(), "before");
    }
    std::fs::write(file("out.00001.capture"), "before").unwrap();
    let rotated = ["import-pcap", pcap, "-o", out, "--rotate-bytes", "1M"];
    let output = millstream(&rotated);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("OUTPUT_EXISTS") && error.contains("out.00001.capture"), "{error}");
    assert!(!file("out.00000.capture").exists());
    stdout(&millstream(&[&rotated[..], &["--force"]].concat()));
    assert!(file("out.00000.capture").exists());
    // A folder is not overwritten.
    let folder = scratch.0.to_str().unwrap();
    for command in [&["import-pcap", pcap, "-o", folder][..], &["export", &whole, "-o", folder]] {
        for force in [&[][..], &["--force"]] {
            let output = millstream(&[command, force].concat());
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && error.contains("directory"), "{error}");
        }
    }
    let output = millstream(&["export", &whole, "-o", &whole, "--force"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("SAME_FILE"));
    // A device has no content that could be lost.
    stdout(&millstream(&["export", &whole, "-o", "/dev/null"]));
}

#[test]
fn errors_give_position_reason_and_fix() {
    let scratch = Scratch::new("captures-errors");
    let (pcap, capture) = (scratch.file("lines.pcap"), scratch.file("lines.capture"));
    let file = datagrams(&["one\n", "two\n"]);
    let [pcap_name, capture_name] = [&pcap, &capture].map(|path| path.to_str().unwrap());
    let import = ["import-pcap", pcap_name, "-o", capture_name, "--force"];
    for (bytes, parts) in [
        (&b""[..], &["PACKETS_DAMAGED", "at byte 0", "empty", "Nothing was imported"][..]),
        (b"hello, world", &["neither pcap nor pcapng"]),
        (
            &file[..file.len() - 1],
            &["at byte 72", "ends within a record", "before the damage are imported"],
        ),
    ] {
        std::fs::write(&pcap, bytes).unwrap();
        let output = millstream(&import);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
    let text = stdout(&millstream(&["export", capture_name, "--format", "text"]));
    assert_eq!(text, "one\n");
    std::fs::write(&pcap, &file).unwrap();
    for (args, part) in [
        (&["import-pcap", "/nowhere.pcap", "-o", capture_name][..], "PACKETS_UNREADABLE"),
        (&["import-pcap", pcap_name, "-o", pcap_name], "SAME_FILE"),
        (&["inspect", pcap_name], "NOT_A_CAPTURE"),
        (&["export", pcap_name], "import-pcap"),
        (&["import-pcap", pcap_name, "-o", capture_name, "--from", "noon"], "2026-03-01T12:30:00"),
    ] {
        let output = millstream(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn damage_in_a_capture_is_reported_and_the_rest_is_read() {
    let scratch = Scratch::new("captures-damage");
    let (pcap, capture) = (scratch.file("lines.pcap"), scratch.file("lines.capture"));
    std::fs::write(&pcap, datagrams(&["one\n", "two\n"])).unwrap();
    let [pcap, name] = [&pcap, &capture].map(|path| path.to_str().unwrap());
    stdout(&millstream(&["import-pcap", pcap, "-o", name]));
    let mut bytes = std::fs::read(&capture).unwrap();
    let at = bytes.windows(4).position(|four| four == b"two\n").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&capture, bytes).unwrap();
    for command in ["inspect", "export"] {
        let output = millstream(&[command, name]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains("CAPTURE_DAMAGED") && error.contains("CRC"), "{error}");
        assert!(error.contains("1 event is missing"), "{error}");
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(shown.contains("one") || shown.contains("bytes in     4 B"), "{shown}");
    }
}

// ---- a folder of captures with descriptions ----

#[test]
fn every_capture_of_a_folder_matches_its_description() {
    let Some(folder) = std::env::var_os("MILLSTREAM_CAPTURES") else { return };
    let mut names: Vec<PathBuf> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|e| e == "json"));
    names.sort();
    let (scratch, mut failures) = (Scratch::new("captures-folder"), Vec::new());
    for name in &names {
        let text = std::fs::read_to_string(name).unwrap();
        let wanted: Value = serde_json::from_str(&text).unwrap();
        let Some(file) = wanted["file"].as_str() else { continue };
        let path = name.with_file_name(file);
        let faults = Comparison::new(&path, &scratch.file("out.capture")).run(&wanted);
        if !faults.is_empty() {
            failures.push(format!("{file}:\n  {}", faults.join("\n  ")));
        }
    }
    assert!(!names.is_empty(), "no descriptions in {}", folder.display());
    assert!(failures.is_empty(), "{} of {}\n{}", failures.len(), names.len(), failures.join("\n"));
}

#[test]
fn every_capture_of_a_folder_has_the_streams_that_tshark_follows() {
    let Some(folder) = std::env::var_os("MILLSTREAM_CAPTURES") else { return };
    let Ok(text) = std::fs::read_to_string(Path::new(&folder).join("expected.json")) else {
        return;
    };
    let expected: Value = serde_json::from_str(&text).unwrap();
    let (scratch, mut failures) = (Scratch::new("captures-streams"), Vec::new());
    for (file, wanted) in expected.as_object().unwrap() {
        let path = Path::new(&folder).join(file);
        let faults = Comparison::new(&path, &scratch.file("out.capture")).streams(wanted);
        failures.extend(faults.iter().map(|fault| format!("{file}: {fault}")));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// For each stream offset: the time, and the byte or the cause of the gap.
type Cells = BTreeMap<u64, (i64, Result<u8, String>)>;

#[derive(Default)]
struct Direction {
    cells: Cells,
    /// Half-closes and resets: kind, stream offset, time.
    ends: Vec<(String, u64, i64)>,
    conflicts: Vec<Value>,
}

struct Connection {
    open: Value,
    /// The direction towards the service, and the direction from it.
    directions: [Direction; 2],
    ignored: BTreeMap<String, u64>,
}

struct Comparison {
    report: Option<Value>,
    exit_code: Option<i32>,
    connections: Vec<Connection>,
    datagrams: Vec<Value>,
    faults: Vec<String>,
}

fn bytes_of(event: &Value) -> Vec<u8> {
    match (event["text"].as_str(), event["base64"].as_str(), event["hex"].as_str()) {
        (Some(text), ..) => text.as_bytes().to_vec(),
        (_, Some(text), _) => {
            use base64::Engine;
            base64::prelude::BASE64_STANDARD.decode(text).unwrap()
        }
        (.., Some(hex)) => (0..hex.len() / 2)
            .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
            .collect(),
        _ => Vec::new(),
    }
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether bytes match an entry, as far as it describes them.
fn is_described(bytes: &[u8], entry: &Value) -> bool {
    let is_given = entry["text"].is_string() || entry["hex"].is_string();
    (!is_given || bytes_of(entry) == bytes)
        && entry["sha256"].as_str().is_none_or(|wanted| wanted == sha256(bytes))
}

impl Comparison {
    /// Imports a file and reads the result.
    fn new(path: &Path, capture: &Path) -> Self {
        let (path, capture) = (path.to_str().unwrap(), capture.to_str().unwrap());
        let output = millstream(&["import-pcap", path, "-o", capture, "--force", "--json"]);
        let mut this = Self {
            report: serde_json::from_slice(&output.stdout).ok(),
            exit_code: output.status.code(),
            connections: Vec::new(),
            datagrams: Vec::new(),
            faults: Vec::new(),
        };
        if this.report.is_some() {
            let mut numbers = BTreeMap::new();
            for line in stdout(&millstream(&["export", capture])).lines() {
                this.add(serde_json::from_str(line).unwrap(), &mut numbers);
            }
        }
        this
    }

    fn add(&mut self, event: Value, numbers: &mut BTreeMap<u64, Result<usize, Value>>) {
        let kind = event["kind"].as_str().unwrap_or_default().to_string();
        let Some(number) = event["connection"].as_u64() else { return };
        if kind == "open" {
            let is_udp = event["protocol"] == "udp";
            let entry = if is_udp { Err(event.clone()) } else { Ok(self.connections.len()) };
            numbers.insert(number, entry);
            if !is_udp {
                let (directions, ignored) = (Default::default(), BTreeMap::new());
                self.connections.push(Connection { open: event, directions, ignored });
            }
            return;
        }
        let is_out = event["direction"] == "out";
        let index = match &numbers[&number] {
            Ok(index) => *index,
            Err(flow) => {
                let (from, to) = if is_out { ("b", "a") } else { ("a", "b") };
                match (kind.as_str(), self.datagrams.last_mut()) {
                    ("data", _) => {
                        let mut datagram = event.clone();
                        datagram["from"] = flow[from].clone();
                        datagram["to"] = flow[to].clone();
                        self.datagrams.push(datagram);
                    }
                    ("gap", Some(last)) => {
                        let missing = event["bytes"].as_u64().unwrap_or_default();
                        let bytes = last["bytes"].as_u64().unwrap_or_default();
                        last["bytes"] = Value::from(bytes + missing);
                    }
                    _ => {}
                }
                return;
            }
        };
        let connection = &mut self.connections[index];
        let direction = &mut connection.directions[usize::from(is_out)];
        let (t, at) = (event["t"].as_i64().unwrap(), event["at"].as_u64().unwrap_or_default());
        match kind.as_str() {
            "data" => {
                for (n, byte) in bytes_of(&event).into_iter().enumerate() {
                    direction.cells.insert(at + n as u64, (t, Ok(byte)));
                }
            }
            "gap" => {
                let cause = event["cause"].as_str().unwrap_or_default();
                for n in 0..event["bytes"].as_u64().unwrap_or_default() {
                    direction.cells.insert(at + n, (t, Err(cause.to_string())));
                }
            }
            "conflict" => direction.conflicts.push(event),
            "ignored" => {
                let reason = event["reason"].as_str().unwrap_or_default().to_string();
                *connection.ignored.entry(reason).or_default() += 1;
            }
            "half-close" | "reset" => direction.ends.push((kind, at, t)),
            _ => {}
        }
    }

    fn check(&mut self, is_right: bool, what: impl FnOnce() -> String) {
        if !is_right && self.faults.len() < 10 {
            self.faults.push(what());
        }
    }

    /// Compares the streams with those of TShark.
    fn streams(mut self, wanted: &Value) -> Vec<String> {
        let report = self.report.take().unwrap_or_default();
        self.check(report["packets"] == wanted["packets"], || format!("packets: {report}"));
        self.check(report["datagrams"] == wanted["udp_packets"], || format!("datagrams: {report}"));
        let streams = wanted["streams"].as_array().unwrap();
        let connections = std::mem::take(&mut self.connections);
        self.check(connections.len() == streams.len(), || format!("{} streams", connections.len()));
        for (connection, wanted) in connections.iter().zip(streams) {
            let is_same = connection.open["a"] == wanted["a"];
            let is_swapped = connection.open["a"] == wanted["b"];
            self.check(is_same || is_swapped, || format!("{} is not {wanted}", connection.open));
            let names = if is_same { ["a", "b"] } else { ["b", "a"] };
            let is_whole = wanted["gaps"] == false && wanted["truncated_packets"] == 0;
            let cells = || connection.directions.iter().flat_map(|d| d.cells.values());
            let gaps = cells().filter(|(_, cell)| cell.is_err()).count();
            self.check(is_whole == (gaps == 0), || format!("{gaps} bytes are missing: {wanted}"));
            for (direction, name) in connection.directions.iter().zip(names) {
                let data: Vec<u8> = direction
                    .cells
                    .values()
                    .filter_map(|(_, c)| c.as_ref().ok().copied())
                    .collect();
                let bytes = &wanted[format!("{name}_bytes")];
                let sum = &wanted[format!("{name}_sha256")];
                let is_right = !is_whole || (*bytes == data.len() && *sum == sha256(&data));
                self.check(is_right, || format!("{} bytes of {name}: {wanted}", data.len()));
            }
        }
        self.faults
    }

    fn run(mut self, wanted: &Value) -> Vec<String> {
        let is_damaged = wanted["damage"].is_object();
        let exit_code = self.exit_code;
        self.check(exit_code == Some(i32::from(is_damaged)), || format!("exit code {exit_code:?}"));
        let Some(report) = self.report.take() else {
            self.check(wanted["packets"] == 0 && is_damaged, || "no report".to_string());
            return self.faults;
        };
        self.check(report["packets"] == wanted["packets"], || format!("packets: {report}"));
        self.check(report["skipped"] == wanted["skipped"], || format!("skipped: {report}"));
        let odd = wanted.get("odd").cloned().unwrap_or_else(|| serde_json::json!({}));
        self.check(report["odd"] == odd, || format!("odd: {report}"));
        let at = &report["damage"][0]["at"];
        self.check(*at == wanted["damage"]["at"], || format!("damage: {report}"));
        let connections = wanted["connections"].as_array().unwrap();
        let count = self.connections.len();
        self.check(count == connections.len(), || format!("{count} connections"));
        for (connection, wanted) in std::mem::take(&mut self.connections).iter().zip(connections) {
            self.connection(connection, wanted);
        }
        let (datagrams, wanted) = (std::mem::take(&mut self.datagrams), &wanted["udp"]);
        let count = datagrams.len();
        let wanted = wanted.as_array().unwrap();
        self.check(count == wanted.len(), || format!("{count} datagrams"));
        for (datagram, wanted) in datagrams.iter().zip(wanted) {
            let bytes = bytes_of(datagram);
            let captured = wanted.get("captured").unwrap_or(&wanted["bytes"]);
            let is_right = ["from", "to", "bytes"].iter().all(|key| datagram[key] == wanted[key])
                && (wanted["t"].is_null() || wanted["t"] == datagram["t"])
                && *captured == bytes.len()
                && is_described(&bytes, wanted);
            self.check(is_right, || format!("{datagram} is not {wanted}"));
        }
        self.faults
    }

    fn connection(&mut self, found: &Connection, wanted: &Value) {
        let name = format!("{} > {}", wanted["a"], wanted["b"]);
        let open = &found.open;
        let is_open = open["a"] == wanted["a"]
            && open["b"] == wanted["b"]
            && (wanted["t_open"].is_null() || open["t"] == wanted["t_open"])
            && (open["midstream"] == true) == (wanted["open"] == "midstream");
        self.check(is_open, || format!("{name}: {open}"));
        let ends = || found.directions.iter().flat_map(|direction| &direction.ends);
        let end = match ends().any(|end| end.0 == "reset") {
            true => "reset",
            false if ends().count() == 2 => "fin",
            false => "open",
        };
        self.check(wanted["end"] == end, || format!("{name}: its end is {end}"));
        let ignored = serde_json::json!(found.ignored);
        let none = serde_json::json!({});
        let is_right = ignored == *wanted.get("ignored").unwrap_or(&none);
        self.check(is_right, || format!("{name}: ignored {ignored}"));
        for (direction, key) in found.directions.iter().zip(["a_to_b", "b_to_a"]) {
            self.direction(&format!("{name} {key}"), direction, &wanted[key]);
        }
    }

    fn direction(&mut self, name: &str, found: &Direction, wanted: &Value) {
        let data: Vec<u8> =
            found.cells.values().filter_map(|(_, cell)| cell.as_ref().ok().copied()).collect();
        let is_all = wanted["bytes"] == data.len() && wanted["sha256"] == sha256(&data);
        self.check(is_all, || format!("{name}: {} bytes", data.len()));
        let conflicts: Vec<Value> = (found.conflicts.iter())
            .map(|c| serde_json::json!({"t": c["t"], "at": c["at"], "bytes": c["bytes"]}))
            .collect();
        let none = serde_json::json!([]);
        let is_right = Value::from(conflicts.clone()) == *wanted.get("conflicts").unwrap_or(&none);
        self.check(is_right, || format!("{name}: conflicts {conflicts:?}"));
        let mut ends = found.ends.iter();
        let mut places = 0;
        for event in wanted["events"].as_array().unwrap() {
            let at = event["at"].as_u64().unwrap();
            let is_time = |t: i64| {
                let latest = event.get("t_latest").unwrap_or(&event["t"]).as_i64();
                let most = latest.max(event["t_max"].as_i64());
                event["t"].as_i64().is_none_or(|from| from <= t && most.is_none_or(|to| t <= to))
            };
            if !matches!(event["kind"].as_str(), Some("data" | "gap")) {
                let end = ends.next();
                let is_right = end.is_some_and(|(kind, place, t)| {
                    event["kind"] == **kind && *place == at && is_time(*t)
                });
                self.check(is_right, || format!("{name}: {end:?} is not {event}"));
                continue;
            }
            let length = event["bytes"].as_u64().unwrap();
            places += length as usize;
            let mut bytes = Vec::new();
            let is_right = (at..at + length).all(|place| match found.cells.get(&place) {
                Some((t, Ok(byte))) => {
                    bytes.push(*byte);
                    event["kind"] == "data" && is_time(*t)
                }
                Some((t, Err(cause))) => event["cause"] == *cause.as_str() && is_time(*t),
                None => false,
            });
            let is_right = is_right && (event["kind"] == "gap" || is_described(&bytes, event));
            self.check(is_right, || format!("{name}: at {at} is not {event}"));
        }
        let is_right = places == found.cells.len() && ends.next().is_none();
        self.check(is_right, || format!("{name}: more than was wanted"));
    }
}
