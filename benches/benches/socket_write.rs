//! The cost of sending the lines of a drain to a loopback socket, in three ways: a copy into one
//! buffer and one `write`, as in the sinks; one vectored write; one `write` per line. `cargo bench
//! -p millstream-benches --bench socket_write`.

use std::hint::black_box;
use std::io::{self, IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

const ROUNDS: usize = 5;
const DRAINS: usize = 2_000;

/// Runs `drain`, which sends `lines` lines, repeatedly. Returns the nanoseconds per line.
fn timed(lines: usize, mut drain: impl FnMut() -> io::Result<()>) -> io::Result<u64> {
    let begun = Instant::now();
    for _ in 0..DRAINS {
        drain()?;
    }
    Ok((begun.elapsed().as_nanos() / (DRAINS * lines) as u128) as u64)
}

fn write_all_vectored(socket: &mut TcpStream, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !parts.is_empty() {
        let written = socket.write_vectored(parts)?;
        IoSlice::advance_slices(&mut parts, written);
    }
    Ok(())
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}

fn main() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let reader = std::thread::spawn(move || -> io::Result<()> {
        let (mut socket, _) = listener.accept()?;
        let mut buffer = vec![0; 1 << 18];
        while socket.read(&mut buffer)? > 0 {}
        Ok(())
    });
    let mut socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    for lines in [1, 16, 256] {
        let texts: Vec<Vec<u8>> =
            (0..lines).map(|n| format!("word-{n:06},{:019}\n", n * n).into_bytes()).collect();
        let (mut one, mut gathered, mut each) = (Vec::new(), Vec::new(), Vec::new());
        let mut buffer = Vec::with_capacity(1 << 16);
        for _ in 0..ROUNDS {
            one.push(timed(lines, || {
                buffer.clear();
                black_box(&texts).iter().for_each(|text| buffer.extend_from_slice(text));
                socket.write_all(&buffer)
            })?);
            gathered.push(timed(lines, || {
                let mut parts: Vec<_> =
                    black_box(&texts).iter().map(|text| IoSlice::new(text)).collect();
                write_all_vectored(&mut socket, &mut parts)
            })?);
            each.push(timed(lines, || {
                black_box(&texts).iter().try_for_each(|text| socket.write_all(text))
            })?);
        }
        println!(
            "{lines} lines of {} bytes: {} ns a line as one buffer, {} ns gathered, {} ns each by itself",
            texts[0].len(),
            median(one),
            median(gathered),
            median(each)
        );
    }
    drop(socket);
    reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
