//! What can be wrong with a module's `.proto` files.

use std::path::PathBuf;
use std::{fmt, io};

/// Why the `.proto` files were not compiled.
///
/// A build script's `main` prints its error with `Debug`; this one's says the same as `Display`, for a person.
#[derive(thiserror::Error)]
pub enum Error {
    /// A file does not parse, an import is missing, a name is unknown. Says file, line and column.
    // Its Debug form is the one with the position.
    #[error("{0:?}")]
    Proto(#[from] protox::Error),
    /// A method takes a stream.
    #[error(
        "method {method} takes a stream of requests, and modules take one request at a time: take `stream` out of its \
         request; many small ones can be one request with a repeated field"
    )]
    StreamOfRequests {
        /// As gRPC spells it.
        method: String,
    },
    /// A command returns a stream.
    #[error(
        "method {method} returns a stream and is a command, which has one response: if it only reads, say so with \
         `option idempotency_level = NO_SIDE_EFFECTS;`; if it writes, take `stream` out of its response"
    )]
    StreamingCommand {
        /// As gRPC spells it.
        method: String,
    },
    /// There is nothing to serve.
    #[error("the .proto files define no service with a method, so the module would serve nothing")]
    NoMethods,
    /// prost-build failed.
    #[error("the Rust code could not be generated: {0}")]
    Generate(#[source] io::Error),
    /// A file in `OUT_DIR` could not be written.
    #[error("{path} could not be written: {source}")]
    Write {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Called from elsewhere than a build script.
    #[error("{0} is not set: call this from a build script (build.rs)")]
    NotABuildScript(&'static str),
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
