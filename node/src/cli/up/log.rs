//! One log out of many: each line with the name of the node that wrote it, in that node's colour.

use std::io::{self, Write};
use std::sync::Arc;

use anstyle::{AnsiColor, Style};
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

/// Told apart on dark and on light ground, and none of them red: that is for errors.
const COLOURS: [AnsiColor; 6] =
    [AnsiColor::Cyan, AnsiColor::Green, AnsiColor::Magenta, AnsiColor::Blue, AnsiColor::Yellow, AnsiColor::BrightBlack];
/// A line that does not end is cut here.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// Where all lines go. A line is written whole or not at all.
#[derive(Clone)]
pub(in crate::cli) struct Log {
    sink: Arc<Mutex<Box<dyn Write + Send>>>,
    tags: Arc<[String]>,
    tag: usize,
}

impl Log {
    /// To standard error; colours only where a terminal shows them. `own` is the name for our own lines.
    pub(super) fn to_stderr<'a>(names: impl Iterator<Item = &'a str>, own: &'a str) -> Self {
        Self::new(Box::new(anstream::AutoStream::auto(io::stderr())), names, own)
    }

    pub(super) fn new<'a>(sink: Box<dyn Write + Send>, names: impl Iterator<Item = &'a str>, own: &'a str) -> Self {
        let names: Vec<_> = names.chain([own]).collect();
        let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        let tags: Arc<[_]> =
            names.iter().enumerate().map(|(at, name)| tag(name, width, colour(at, names.len()))).collect();
        Self { sink: Arc::new(Mutex::new(sink)), tag: tags.len() - 1, tags }
    }

    /// For the lines of one node.
    pub(super) fn of_node(&self, at: usize) -> Self {
        Self { tag: at, ..self.clone() }
    }

    /// Writes one line.
    pub(in crate::cli) fn say(&self, line: &str) {
        // Whoever closed the terminal does not want to know.
        let _ = writeln!(self.sink.lock(), "{} {line}", self.tags[self.tag]);
    }

    /// Writes everything that is read, line by line, until the other side closes.
    pub(in crate::cli) async fn copy(self, from: impl AsyncRead + Unpin) {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while (&mut from).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
            self.say(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']));
            line.clear();
        }
    }
}

fn colour(at: usize, count: usize) -> Style {
    if at + 1 == count { Style::new().bold() } else { COLOURS[at % COLOURS.len()].on_default() }
}

fn tag(name: &str, width: usize, style: Style) -> String {
    format!("{style}{name:width$} |{style:#}")
}
