//! Tests of the whole state machine: golden scripts, replay, crashes, snapshots.

mod appointments;
mod crash;
mod harness;
mod replay;
mod scripts;
mod snapshot;
mod uploads;
