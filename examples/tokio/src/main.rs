//! A Tokio service around a query: clients send words over TCP, one per line, and receive for each
//! word how often all clients together have sent it.
//!
//! `cargo run --release -p millstream-example-tokio`, and then `printf 'a\nb\na\n' | nc -N
//! 127.0.0.1 7878`
//!
//! Each connection has a clone of the query's input as a [`Sink`](futures_util::Sink), and one task
//! reads the output as a [`Stream`](futures_util::Stream). No thread waits for a client: the query
//! runs on its worker, and all tasks run on one Tokio thread.
//!
//! *Backpressure.* If the query is behind, `send` waits, and so do the clients. A client that does
//! not read its answers can have up to [`IN_FLIGHT`] words in flight; at that limit the service
//! stops reading from its connection until answers have been written.

use futures_util::{SinkExt, StreamExt};
use millstream::stream::{Flow, InputSink, OutputStream, Query, Reduce};
use millstream::{Config, EngineError, WaitProfile};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Maximum number of words in flight per client.
const IN_FLIGHT: usize = 1_000;
/// Maximum length of a line with its line break, in bytes. A client that sends a longer one is
/// disconnected.
const LINE_BYTES: u64 = 1_024;

/// A client's number, and a word that it has sent. An empty word ends the client's input.
type Word = (u64, String);
/// A word, its client, and how often the word has been sent so far.
type Counted = (String, (u64, u64));

/// Starts the query.
fn start() -> Result<(InputSink<Word>, OutputStream<Counted>, Query), EngineError> {
    let flow = Flow::new("words");
    let (input, words) = flow.channel::<Word>();
    let (sink, output) = flow.output();
    let count = |count: &mut u64, (client, _): Word| {
        *count += 1;
        (client, *count)
    };
    words.key_by(|(_, word)| word.clone()).aggregate(Reduce::new(count)).sink(sink);
    // The query is not pinned, so that it takes no core from the service's own threads.
    let config = Config { pin: false, wait: WaitProfile::Park, ..Config::default() };
    let query = flow.start(config)?;
    Ok((input.into_sink(), output.into_stream(), query))
}

/// For each client, the channel for its answers.
#[derive(Clone, Default)]
struct Clients(Arc<Mutex<HashMap<u64, mpsc::Sender<String>>>>);

impl Clients {
    fn with<R>(&self, body: impl FnOnce(&mut HashMap<u64, mpsc::Sender<String>>) -> R) -> R {
        body(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Sends each answer to its client, until the query ends.
async fn answer(mut counts: OutputStream<Counted>, clients: Clients) -> Result<(), EngineError> {
    while let Some(counted) = counts.next().await {
        let (word, (client, count)) = counted?;
        clients.with(|clients| {
            if word.is_empty() {
                clients.remove(&client);
            } else if let Some(answers) = clients.get(&client) {
                // The channel has room for all words that a client may have in flight. A failure
                // means that the client has disconnected, which does not matter.
                let _ = answers.try_send(format!("{word} {count}\n"));
            }
        });
    }
    Ok(())
}

/// Reads a client's words into the query.
async fn read(
    (client, connection): (u64, OwnedReadHalf),
    words: &mut InputSink<Word>,
    room: &Semaphore,
) -> Result<(), Failure> {
    let (mut reader, mut line) = (BufReader::new(connection), String::new());
    loop {
        line.clear();
        (&mut reader).take(LINE_BYTES).read_line(&mut line).await?;
        if !line.is_empty() && !line.ends_with('\n') && line.len() as u64 == LINE_BYTES {
            return Err("a line is too long".into());
        }
        match line.trim() {
            "" => return Ok(()),
            word => {
                // The permit is returned when the answer has been written.
                room.acquire().await?.forget();
                words.send((client, word.to_string())).await?;
            }
        }
    }
}

/// Writes a client's answers.
async fn write(
    mut connection: OwnedWriteHalf,
    mut answers: mpsc::Receiver<String>,
    room: Arc<Semaphore>,
) -> std::io::Result<()> {
    while let Some(answer) = answers.recv().await {
        connection.write_all(answer.as_bytes()).await?;
        room.add_permits(1);
    }
    Ok(())
}

/// Serves a client until its last answer is written.
async fn serve_client(
    client: u64,
    connection: TcpStream,
    mut words: InputSink<Word>,
    clients: Clients,
) -> Result<(), Failure> {
    let (reads, writes) = connection.into_split();
    let (sender, answers) = mpsc::channel(IN_FLIGHT);
    let room = Arc::new(Semaphore::new(IN_FLIGHT));
    clients.with(|clients| clients.insert(client, sender));
    let writer = tokio::spawn(write(writes, answers, room.clone()));
    let read = read((client, reads), &mut words, &room).await;
    // The end of the input goes through the query like a word, so its answer follows all others.
    words.send((client, String::new())).await?;
    writer.await??;
    read
}

/// Serves `clients` clients, sequentially or concurrently, and returns.
async fn serve(listener: TcpListener, clients: u64) -> Result<(), Failure> {
    let (words, counts, query) = start()?;
    let connected = Clients::default();
    let answers = tokio::spawn(answer(counts, connected.clone()));
    let mut served = Vec::new();
    for client in 0..clients {
        let (connection, _) = listener.accept().await?;
        let serving = serve_client(client, connection, words.clone(), connected.clone());
        served.retain(|task: &tokio::task::JoinHandle<_>| !task.is_finished());
        served.push(tokio::spawn(async move {
            if let Err(error) = serving.await {
                eprintln!("client {client}: {error}");
            }
        }));
    }
    for task in served {
        task.await?;
    }
    // When all inputs are dropped, the query ends, and so does the stream of answers.
    drop(words);
    answers.await??;
    // `stop` and `await_termination` block, so they must not run on a thread that runs tasks.
    tokio::task::spawn_blocking(move || query.await_termination()).await??;
    Ok(())
}

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:7878").await?;
        println!("words at {}", listener.local_addr()?);
        serve(listener, u64::MAX).await
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    /// Many clients at once, each with more words than may be in flight. One of them sends a line
    /// that is too long instead.
    #[test]
    fn every_client_gets_an_answer_to_each_of_its_words() {
        const CLIENTS: u64 = 20;
        const WORDS: usize = 3_000;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let answered = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let talks = (0..CLIENTS).map(|client| {
                std::thread::spawn(move || {
                    let mut connection = std::net::TcpStream::connect(address).unwrap();
                    if client == 7 {
                        let _ = connection.write_all(&[b'x'; 2 * LINE_BYTES as usize]);
                        return 0;
                    }
                    let mut reads = connection.try_clone().unwrap();
                    let answers = std::thread::spawn(move || {
                        let mut answers = String::new();
                        reads.read_to_string(&mut answers).unwrap();
                        answers.lines().filter(|line| line.starts_with("word")).count()
                    });
                    (0..WORDS).for_each(|n| writeln!(connection, "word{}", n % 10).unwrap());
                    connection.shutdown(std::net::Shutdown::Write).unwrap();
                    answers.join().unwrap()
                })
            });
            let talks = talks.collect::<Vec<_>>();
            serve(listener, CLIENTS).await.unwrap();
            talks.into_iter().map(|talk| talk.join().unwrap()).sum::<usize>()
        });
        assert_eq!(answered, (CLIENTS as usize - 1) * WORDS);
    }
}
