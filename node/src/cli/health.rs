//! `balsa health`: whether one node is ready, or alive, as an exit code.
//!
//! For a probe from inside a node's container: Docker's health check, or Kubernetes' `exec`. The image has no shell and no
//! curl, and the answer is one node's own, so this asks its HTTP port, not the cluster.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Console, Exit, Format};

/// How long the answer may take unless `--timeout` says otherwise: who probes asks again soon.
const TIMEOUT: Duration = Duration::from_secs(2);
/// A list of checks is a few hundred bytes.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit code 0: ready. 1: not ready, and standard output says why. 3: nothing answers there.")]
pub(super) struct Health {
    /// The node's http_addr, as host:port
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:6080", value_parser = host_and_port)]
    http: String,
    /// Ask only whether it is alive (/livez), not whether clients should be sent to it (/readyz)
    #[arg(long)]
    live: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens, or the connection broke.
    #[error("the HTTP port {http} does not answer: {source}")]
    Unreachable {
        /// The address that was asked.
        http: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// Something listens, and says nothing.
    #[error("the HTTP port {http} has not answered within {}", humantime::format_duration(*.within))]
    Slow {
        /// The address that was asked.
        http: String,
        /// How long it had.
        within: Duration,
    },
    /// Something else listens there.
    #[error("what answers at {http} is not a node's HTTP port; --http wants its http_addr, such as 127.0.0.1:6080")]
    Other {
        /// The address that was asked.
        http: String,
    },
}

/// What a node answered.
struct Answer {
    well: bool,
    text: String,
}

pub(super) async fn run(
    args: &Health,
    timeout: Option<Duration>,
    format: Format,
    console: &mut Console,
) -> Result<Exit, super::Error> {
    let path = if args.live { "/livez" } else { "/readyz?verbose" };
    let answer = within(timeout.unwrap_or(TIMEOUT), &args.http, path).await?;
    match format {
        Format::Text => console.line(answer.text.trim_end())?,
        Format::Json => console.json(&json!({ "well": answer.well, "text": answer.text }))?,
    }
    Ok(if answer.well { Exit::Ok } else { Exit::No })
}

async fn within(timeout: Duration, http: &str, path: &str) -> Result<Answer, Error> {
    match tokio::time::timeout(timeout, ask(http, path)).await {
        Ok(Ok(bytes)) => parse(&bytes).ok_or_else(|| Error::Other { http: http.into() }),
        Ok(Err(source)) => Err(Error::Unreachable { http: http.into(), source }),
        Err(_) => Err(Error::Slow { http: http.into(), within: timeout }),
    }
}

/// HTTP/1.0, in which the answer ends with the connection and is never sent in chunks.
async fn ask(http: &str, path: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(http).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {http}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(answer)
}

/// `None` unless it is a node's 200 or 503.
fn parse(answer: &[u8]) -> Option<Answer> {
    let (head, text) = std::str::from_utf8(answer).ok()?.split_once("\r\n\r\n")?;
    let code = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?;
    let well = match code {
        "200" => true,
        "503" => false,
        _ => return None,
    };
    Some(Answer { well, text: text.into() })
}

fn host_and_port(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) => Ok(text.into()),
        _ => Err("it is to be host:port, such as 127.0.0.1:6080".into()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// What `ask`ing somebody who answers with `bytes` comes to.
    async fn answered(bytes: &'static [u8]) -> Result<Answer, Error> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = listener.local_addr().unwrap().to_string();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 64];
            let read = stream.read(&mut request).await.unwrap();
            assert!(request[..read].starts_with(b"GET /readyz?verbose HTTP/1.0\r\n"));
            stream.write_all(bytes).await.unwrap();
        });
        let answer = within(Duration::from_secs(10), &http, "/readyz?verbose").await;
        server.await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_node_is_well_if_it_says_so_and_its_words_are_passed_on() {
        let ready = answered(b"HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nok\n").await.unwrap();
        assert!(ready.well);
        assert_eq!(ready.text, "ok\n");
        let not = answered(b"HTTP/1.0 503 Service Unavailable\r\n\r\n[-]voter failed: no\nnot ready\n").await.unwrap();
        assert!(!not.well);
        assert_eq!(not.text, "[-]voter failed: no\nnot ready\n");
    }

    #[tokio::test]
    async fn whatever_else_answers_is_not_taken_for_a_node() {
        for bytes in
            [&b""[..], b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 404 Not Found\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n\xff"]
        {
            assert!(matches!(answered(bytes).await, Err(Error::Other { .. })), "{}", bytes.escape_ascii());
        }
    }

    #[tokio::test]
    async fn who_listens_and_says_nothing_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = listener.local_addr().unwrap().to_string();
        let answer = within(Duration::from_millis(20), &http, "/livez").await;
        assert!(matches!(answer, Err(Error::Slow { .. })));
    }

    #[test]
    fn an_address_without_a_port_is_wrong_usage() {
        for text in ["", "localhost", ":6080", "localhost:", "localhost:0", "localhost:http"] {
            assert!(host_and_port(text).is_err(), "{text}");
        }
        assert_eq!(host_and_port("[::1]:6080").as_deref(), Ok("[::1]:6080"));
    }
}
