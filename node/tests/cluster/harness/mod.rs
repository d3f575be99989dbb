//! What the tests are made with: [`Cluster`], its [`Node`]s, and words for what a test waits for.

mod cluster;
mod node;
mod ports;
mod programs;
mod turns;
mod waiting;

pub(crate) use cluster::{Cluster, DEFAULT_TIMINGS, File, SLOW_ELECTIONS, Setup};
pub(crate) use node::{Node, agreed_leader, get, show_end};
pub(crate) use ports::{free_ports, reserve};
pub(crate) use programs::{Ran, balsa, perish_with_us, program, run};
pub(crate) use turns::{Turn, turn, turn_alone};
pub(crate) use waiting::{PATIENCE, calm, stays, until, until_within};
