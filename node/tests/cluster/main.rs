//! What Balsa promises, kept by real processes.
//!
//! Every test here starts `balsa serve` three times from one generated `balsa.toml`, as a user would, and then does to the
//! processes what happens to processes: SIGKILL, SIGSTOP, SIGTERM, an emptied volume, a flipped bit. It looks at them only
//! from outside: through the command line, through gRPC, through the probes. [`harness`] is the machinery, [`hostile`] the
//! messages of the module that counts (so that a command applied twice shows), and each other module is one promise. For
//! those about the life of a module, [`volume`] is a node's files, [`abacus`] makes modules, [`witness`] clients that
//! notice if the wrong one answers, and [`operator`] does what `balsa module` does.
//!
//! The same with machines of their own instead of processes, as far as a container is one: [`containers`].
//!
//! Two tests run nodes at a time, and a Kubernetes beside them: their clients have pauses, so that two cores carry that. Tests that fill the
//! machine are alone ([`harness::turn_alone`]). None sleeps for a fixed time where there
//! is a condition to wait for, and each wait has a deadline that only a broken cluster meets. What a machine that stands still for
//! seconds may cause by itself (an election) is a failure only if it happens again and again ([`harness::calm`]).

#![allow(clippy::unwrap_used, missing_docs)]

mod abacus;
#[path = "../../src/testing/exposition.rs"]
mod exposition;
mod harness;
mod hostile;
mod load;
mod operator;
#[path = "../../src/testing/project.rs"]
mod project;
#[path = "../../src/testing/section.rs"]
mod section;
mod volume;
mod witness;

mod authors;
mod behind;
mod clock;
mod command_line;
mod compared;
mod containers;
mod doors;
mod edited;
mod fenced;
mod founded;
mod joined;
mod killed;
mod lost;
mod measured;
mod midway;
mod minority;
mod pushed;
mod python;
mod read;
mod recovered;
mod rejected;
mod removed;
mod restored;
mod retried;
mod rolling;
mod several;
mod stalled;
mod stopped;
mod streamed;
mod swapped;
mod traced;
mod voters;
