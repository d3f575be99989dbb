//! Which module was here before: what `migrate` is told.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// The version of a module: what its crate's `Cargo.toml` says, or the metadata of a module in another language.
///
/// Versions are ordered as [semantic versioning](https://semver.org/) has it: by their numbers, and one with a pre-release
/// (`1.2.0-rc.1`) before the one without.
///
/// ```
/// use balsa_sdk::Version;
///
/// let from = Version::read("1.2.0-rc.1");
/// assert!(from < Version::new(1, 2, 0) && from > Version::new(1, 1, 9));
/// assert_eq!((from.major(), from.minor(), from.patch(), from.text()), (1, 2, 0, "1.2.0-rc.1"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version {
    numbers: [u64; 3],
    text: String,
}

/// A text that is not `major.minor.patch`, with or without a `-pre-release` and a `+build`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidVersion {
    text: String,
}

impl Version {
    /// `major.minor.patch`.
    pub fn new(major: u64, minor: u64, patch: u64) -> Self {
        Self { numbers: [major, minor, patch], text: format!("{major}.{minor}.{patch}") }
    }

    /// Whatever the text is: numbers that it does not have are 0. It is how the version of the module before is read, since a
    /// module in another language may call itself as it likes; a text of one's own is better read with `parse`.
    pub fn read(text: &str) -> Self {
        let mut numbers = [0; 3];
        let mut parts = release(text).split('.');
        for number in &mut numbers {
            match parts.next().and_then(whole_number) {
                Some(found) => *number = found,
                None => break,
            }
        }
        Self { numbers, text: text.to_owned() }
    }

    /// The first number.
    pub fn major(&self) -> u64 {
        self.numbers[0]
    }

    /// The second number.
    pub fn minor(&self) -> u64 {
        self.numbers[1]
    }

    /// The third number.
    pub fn patch(&self) -> u64 {
        self.numbers[2]
    }

    /// All of it, as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What is behind the first `-`, without the build.
    fn pre_release(&self) -> Option<&str> {
        without_build(&self.text).split_once('-').map(|(_, pre_release)| pre_release)
    }
}

fn without_build(text: &str) -> &str {
    text.split('+').next().unwrap_or(text)
}

fn release(text: &str) -> &str {
    without_build(text).split('-').next().unwrap_or(text)
}

/// Only digits; `parse` alone would take a sign.
fn whole_number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

impl FromStr for Version {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        let numbers: Option<Vec<_>> = release(text).split('.').map(whole_number).collect();
        match numbers {
            Some(numbers) if numbers.len() == 3 => Ok(Self::read(text)),
            _ => Err(InvalidVersion { text: text.to_owned() }),
        }
    }
}

impl Ord for Version {
    /// What semantic versioning holds for equal (builds of one version) is ordered by the text, to agree with `==`.
    fn cmp(&self, other: &Self) -> Ordering {
        let pre_releases = || match (self.pre_release(), other.pre_release()) {
            (Some(own), Some(other)) => compare_pre_releases(own, other),
            (own, other) => own.is_none().cmp(&other.is_none()),
        };
        self.numbers.cmp(&other.numbers).then_with(pre_releases).then_with(|| self.text.cmp(&other.text))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Part by part: numbers by their value and before words, words by their bytes, a longer one behind its beginning.
fn compare_pre_releases(a: &str, b: &str) -> Ordering {
    let rank = |part: &'_ str| (whole_number(part).is_none(), whole_number(part));
    let ranked = |text| str::split(text, '.').map(move |part| (rank(part), part));
    ranked(a).cmp(ranked(b))
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for InvalidVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a version: it would be major.minor.patch, such as 1.2.0 or 1.2.0-rc.1", self.text)
    }
}

impl std::error::Error for InvalidVersion {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_semantic_versioning() {
        // The example of https://semver.org/#spec-item-11, and what is around it.
        let ordered = [
            "",
            "0.9.10",
            "1.0.0-0.3",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.0+build",
            "1.0.1",
            "1.2.0",
            "1.10.0",
            "2.0.0",
        ];
        let versions: Vec<_> = ordered.iter().map(|text| Version::read(text)).collect();
        for (i, a) in versions.iter().enumerate() {
            for (j, b) in versions.iter().enumerate() {
                assert_eq!(a.cmp(b), i.cmp(&j), "{a} {b}");
            }
        }
    }

    #[test]
    fn what_is_not_a_version_is_read_but_not_parsed() {
        assert_eq!("1.2.3-x+y".parse(), Ok(Version::read("1.2.3-x+y")));
        for text in ["", "1", "1.2", "1.2.3.4", "v1.2.3", "1.+2.3", "1..3", "1.2.99999999999999999999"] {
            let error = text.parse::<Version>().unwrap_err();
            assert!(error.to_string().starts_with(&format!("`{text}` is not a version")), "{error}");
        }
        let odd = Version::read("7.x.3 (the good one)");
        assert_eq!((odd.major(), odd.minor(), odd.patch(), odd.text()), (7, 0, 0, "7.x.3 (the good one)"));
    }
}
