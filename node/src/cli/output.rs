//! Standard streams, and bytes as people and programs read them.
//!
//! Keys and values are bytes. To a program they go as they are; to a terminal, or in a list, they are escaped, so that a
//! value can neither break a line nor drive the terminal; in JSON they are base64, with the text beside it where they are
//! text.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;

use anstyle::{AnsiColor, Style};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::{Error, Exit};
use crate::ids::hex;

/// For people, or for programs. (The variants have no doc comments, since clap would show help on three pages for them.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// Where a command reads and writes.
pub struct Console {
    /// Standard input.
    pub stdin: Box<dyn Read + Send>,
    /// Whether a person is at standard input.
    pub in_is_terminal: bool,
    /// Standard output.
    pub out: Box<dyn Write + Send>,
    /// Standard error.
    pub err: Box<dyn Write + Send>,
    /// Whether a person reads standard output.
    pub out_is_terminal: bool,
    /// Whether standard output shows colours.
    pub out_has_colour: bool,
    /// Whether standard error shows colours.
    pub err_has_colour: bool,
    /// The working directory.
    pub directory: PathBuf,
}

impl std::fmt::Debug for Console {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Console").field("directory", &self.directory).finish_non_exhaustive()
    }
}

const BAD: Style = AnsiColor::Red.on_default().bold();
const CAREFUL: Style = AnsiColor::Yellow.on_default();
const GOOD: Style = AnsiColor::Green.on_default();

impl Console {
    /// This process's.
    pub fn of_process() -> Self {
        // Our own check and not a stream of `anstream`, which would take escape sequences out of values, too.
        let has_colour = |choice| choice != anstream::ColorChoice::Never;
        Self {
            stdin: Box::new(io::stdin()),
            in_is_terminal: io::stdin().is_terminal(),
            out: Box::new(io::BufWriter::new(io::stdout())),
            err: Box::new(io::stderr()),
            out_is_terminal: io::stdout().is_terminal(),
            out_has_colour: has_colour(anstream::AutoStream::choice(&io::stdout())),
            err_has_colour: has_colour(anstream::AutoStream::choice(&io::stderr())),
            directory: std::env::current_dir().unwrap_or_else(|_| PathBuf::from(".")),
        }
    }

    /// Writes a line to standard output.
    pub fn line(&mut self, text: impl AsRef<str>) -> Result<(), Error> {
        Ok(writeln!(self.out, "{}", text.as_ref())?)
    }

    /// Writes `value` as a line of JSON to standard output.
    pub fn json(&mut self, value: &impl Serialize) -> Result<(), Error> {
        let text = serde_json::to_string(value).expect("our types are valid JSON");
        self.line(text)
    }

    /// Writes bytes as they are; for a person escaped where need be, and with a newline.
    pub fn bytes(&mut self, bytes: &[u8], as_hex: bool) -> Result<(), Error> {
        if as_hex {
            self.out.write_all(hex(bytes).as_bytes())?;
        } else if self.out_is_terminal && !is_plain_text(bytes) {
            self.out.write_all(escape(bytes).as_bytes())?;
        } else {
            self.out.write_all(bytes)?;
        }
        if self.out_is_terminal {
            self.out.write_all(b"\n")?;
        }
        Ok(())
    }

    /// Says something that is not the result, on standard error.
    pub fn note(&mut self, text: &str) {
        // Whoever closed standard error does not want to know.
        let _ = writeln!(self.err, "{text}");
    }

    /// Asks the person at the terminal, and returns the answer without its end of line.
    pub fn ask(&mut self, question: &str) -> Result<String, Error> {
        write!(self.err, "{question} ")?;
        self.err.flush()?;
        let (mut answer, mut byte) = (Vec::new(), [0]);
        while self.stdin.read(&mut byte)? == 1 && byte[0] != b'\n' {
            answer.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&answer).trim().to_owned())
    }

    /// What is buffered goes out.
    pub fn flush(&mut self) -> Result<(), Error> {
        Ok(self.out.flush()?)
    }

    /// `text` for standard output, as something that is wrong.
    pub fn paint_bad(&self, text: &str) -> String {
        paint(self.out_has_colour, BAD, text)
    }

    /// `text` for standard output, as something to look at.
    pub fn paint_careful(&self, text: &str) -> String {
        paint(self.out_has_colour, CAREFUL, text)
    }

    /// `text` for standard output, as something that is well.
    pub fn paint_good(&self, text: &str) -> String {
        paint(self.out_has_colour, GOOD, text)
    }

    /// `text` for standard error, as something that is wrong.
    pub fn paint_error(&self, text: &str) -> String {
        paint(self.err_has_colour, BAD, text)
    }

    /// Prints what clap has to say: help and version are results, the rest is an error.
    pub(super) fn usage(&mut self, error: &clap::Error) -> Exit {
        let (stream, colour) = match error.use_stderr() {
            true => (&mut self.err, self.err_has_colour),
            false => (&mut self.out, self.out_has_colour),
        };
        let text = error.render();
        // Nothing is left to report to if this fails.
        let _ = if colour { write!(stream, "{}", text.ansi()) } else { write!(stream, "{text}") };
        let _ = stream.flush();
        if error.exit_code() == 0 { Exit::Ok } else { Exit::Usage }
    }
}

fn paint(colour: bool, style: Style, text: &str) -> String {
    if colour { format!("{style}{text}{style:#}") } else { text.to_owned() }
}

/// Text that a terminal shows as it is: lines and tabs included, other control characters not.
fn is_plain_text(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t'))
}

/// One line of printable text: `\n`, `\t`, `\r`, `\\`, and `\xNN` for each other byte that is not printable UTF-8.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        chunk.valid().chars().for_each(|c| escape_char(c, &mut text));
        chunk.invalid().iter().for_each(|byte| escape_byte(*byte, &mut text));
    }
    text
}

fn escape_char(c: char, text: &mut String) {
    match c {
        '\\' => text.push_str("\\\\"),
        '\n' => text.push_str("\\n"),
        '\r' => text.push_str("\\r"),
        '\t' => text.push_str("\\t"),
        c if c.is_control() => c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| escape_byte(byte, text)),
        c => text.push(c),
    }
}

fn escape_byte(byte: u8, text: &mut String) {
    write!(text, "\\x{byte:02x}").expect("writing to a String cannot fail");
}

/// Bytes in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JsonBytes {
    /// Always.
    pub base64: String,
    /// Where the bytes are text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub utf8: Option<String>,
}

impl From<&[u8]> for JsonBytes {
    fn from(bytes: &[u8]) -> Self {
        Self { base64: STANDARD.encode(bytes), utf8: std::str::from_utf8(bytes).ok().map(str::to_owned) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_not_printable_is_escaped_and_nothing_else() {
        assert_eq!(escape("plain ñ 木".as_bytes()), "plain ñ 木");
        assert_eq!(escape(b"a\\b\nc\td\re"), "a\\\\b\\nc\\td\\re");
        assert_eq!(escape(b"\x00\x1b[31m\xff\xc3"), "\\x00\\x1b[31m\\xff\\xc3");
        assert_eq!(escape("\u{85}".as_bytes()), "\\xc2\\x85");
    }

    #[test]
    fn json_has_the_text_only_where_there_is_text() {
        let text = serde_json::to_string(&JsonBytes::from(&b"abc"[..])).unwrap();
        assert_eq!(text, r#"{"base64":"YWJj","utf8":"abc"}"#);
        let text = serde_json::to_string(&JsonBytes::from(&b"\xff"[..])).unwrap();
        assert_eq!(text, r#"{"base64":"/w=="}"#);
    }
}
