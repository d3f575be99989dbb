//! Log lines of a module: they appear in the log of each node that runs the call, and change nothing else.
//!
//! A line without arguments is passed on as it is; only one with arguments pays for formatting.

use std::fmt::Arguments;

use crate::imports;

/// How important a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Level {
    /// Something is broken.
    Error = 1,
    /// Something may be.
    Warn = 2,
    /// Worth knowing.
    Info = 3,
    /// For whoever looks into the module.
    Debug = 4,
    /// Every step.
    Trace = 5,
}

/// Writes one line; what the macros expand to.
pub fn line(level: Level, arguments: Arguments<'_>) {
    match arguments.as_str() {
        Some(text) => imports::log(level, text),
        None => imports::log(level, &arguments.to_string()),
    }
}

/// Logs at [`Level::Error`], with the arguments of `format!`.
#[macro_export]
macro_rules! error {
    ($($argument:tt)+) => { $crate::private::line($crate::Level::Error, format_args!($($argument)+)) };
}

/// Logs at [`Level::Warn`], with the arguments of `format!`.
#[macro_export]
macro_rules! warn {
    ($($argument:tt)+) => { $crate::private::line($crate::Level::Warn, format_args!($($argument)+)) };
}

/// Logs at [`Level::Info`], with the arguments of `format!`.
#[macro_export]
macro_rules! info {
    ($($argument:tt)+) => { $crate::private::line($crate::Level::Info, format_args!($($argument)+)) };
}

/// Logs at [`Level::Debug`], with the arguments of `format!`.
#[macro_export]
macro_rules! debug {
    ($($argument:tt)+) => { $crate::private::line($crate::Level::Debug, format_args!($($argument)+)) };
}

/// Logs at [`Level::Trace`], with the arguments of `format!`.
#[macro_export]
macro_rules! trace {
    ($($argument:tt)+) => { $crate::private::line($crate::Level::Trace, format_args!($($argument)+)) };
}
