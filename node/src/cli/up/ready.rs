//! Waiting until the nodes are ready: each is asked `GET /readyz` until it answers 200.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::log::Log;
use super::plan::local;
use crate::config::Site;

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(50);
/// For one answer.
const ANSWER: Duration = Duration::from_secs(2);
/// Of an answer that is read: the status line and what `?verbose` says.
const ANSWER_BYTES_MAX: u64 = 4096;

/// Returns when all are ready. Says what it waits for, every `patience`.
pub(super) async fn all(sites: &[Site], patience: Duration, log: &Log) {
    let started = Instant::now();
    let mut next = patience;
    loop {
        let mut waiting = Vec::new();
        for site in sites {
            if let Err(reason) = ask(local(site.http_addr)).await {
                waiting.push(format!("{} ({reason})", site.name));
            }
        }
        if waiting.is_empty() {
            return;
        }
        if started.elapsed() >= next {
            log.say(&format!("still waiting for {}", waiting.join(", ")));
            next += patience;
        }
        sleep(PAUSE).await;
    }
}

/// `Ok` if the node is ready, else why not.
async fn ask(addr: SocketAddr) -> Result<(), String> {
    let answer = timeout(ANSWER, get(addr)).await.map_err(|_| "no answer".to_owned())?;
    let answer = answer.map_err(|error| error.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split(' ').nth(1) {
        Some("200") => Ok(()),
        _ => Err(reason(body).unwrap_or("not ready").to_owned()),
    }
}

async fn get(addr: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(addr).await?;
    let request = format!("GET /readyz?verbose HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The first check that failed, as `/readyz?verbose` lists them, else the first line.
fn reason(body: &str) -> Option<&str> {
    let mut lines = body.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.clone().next();
    lines.find(|line| line.starts_with("[-]") || line.contains("failed") || line.contains("not ")).or(first)
}
