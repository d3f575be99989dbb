//! Text that is different on every node, written once: `"127.0.0.1:{6000 + 100 * ordinal}"`.
//!
//! One `balsa.toml` serves every node, so what differs between nodes must follow from the one thing that differs: the node's
//! ordinal, the number at the end of its name. Between braces stands one of
//!
//! - `ordinal`: 0 for the first node,
//! - `name`: the node's name, such as `balsa-1`,
//! - `cluster`: the cluster's name,
//! - a sum of products of whole numbers and `ordinal`: `6000 + 100 * ordinal`.
//!
//! There are no conditions, no brackets and no escapes: whoever needs more has outgrown one file.

use std::fmt;
use std::ops::Range;

/// A template, parsed: literal text and holes, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Name,
    Cluster,
    Sum(Vec<Vec<Factor>>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Factor {
    Number(u64),
    Ordinal,
}

/// What a template is evaluated for: one node.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// The number at the end of the node's name.
    pub ordinal: u32,
    /// The node's name; `None` where it is the name that is being made.
    pub name: Option<&'a str>,
    /// The cluster's name.
    pub cluster: &'a str,
}

/// Why a template cannot be read, and which of its bytes are to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct Error {
    /// What is wrong.
    pub fault: Fault,
    /// Where in the template, in bytes.
    pub at: Range<usize>,
}

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// `{` without `}`.
    #[error("this `{{` is never closed")]
    Unclosed,
    /// `}` without `{`.
    #[error("this `}}` closes nothing")]
    Unopened,
    /// `{}`.
    #[error("there is nothing between these braces")]
    Empty,
    /// A word that is not a variable.
    #[error("there is no variable `{0}`")]
    UnknownVariable(String),
    /// `{name}` where the name itself is made.
    #[error("`name` cannot be used to make the name itself")]
    NameInName,
    /// Not a sum of products.
    #[error("`{0}` is not a sum such as `6000 + 100 * ordinal`")]
    NotASum(String),
    /// The number does not fit.
    #[error("the number becomes too large")]
    TooLarge,
}

impl Template {
    /// Reads `text` as a template.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut parts = Vec::new();
        let mut at = 0;
        while at < text.len() {
            let rest = &text[at..];
            let literal = rest.find(['{', '}']).unwrap_or(rest.len());
            if literal > 0 {
                parts.push(Part::Literal(rest[..literal].to_owned()));
                at += literal;
                continue;
            }
            if rest.starts_with('}') {
                return Err(Error { fault: Fault::Unopened, at: at..at + 1 });
            }
            let inner = hole(rest).ok_or(Error { fault: Fault::Unclosed, at: at..at + 1 })?;
            let end = at + inner.len() + 2;
            parts.push(Part::parse(inner).map_err(|fault| Error { fault, at: at..end })?);
            at = end;
        }
        Ok(Self(parts))
    }

    /// The template's text for one node.
    pub fn evaluate(&self, scope: Scope<'_>) -> Result<String, Fault> {
        self.0.iter().map(|part| part.evaluate(scope)).collect()
    }

    /// Whether it is the same for every node.
    pub fn is_constant(&self) -> bool {
        self.0.iter().all(|part| match part {
            Part::Literal(_) | Part::Cluster => true,
            Part::Name => false,
            Part::Sum(terms) => !terms.iter().flatten().any(|factor| *factor == Factor::Ordinal),
        })
    }
}

/// What stands between the brace that `rest` begins with and the next closing one.
fn hole(rest: &str) -> Option<&str> {
    let inner = &rest[1..];
    let end = inner.find(['{', '}'])?;
    inner[end..].starts_with('}').then(|| &inner[..end])
}

impl Part {
    fn parse(inner: &str) -> Result<Self, Fault> {
        match inner.trim() {
            "" => Err(Fault::Empty),
            "name" => Ok(Self::Name),
            "cluster" => Ok(Self::Cluster),
            sum => sum.split('+').map(|term| product(term, sum)).collect::<Result<_, _>>().map(Self::Sum),
        }
    }

    fn evaluate(&self, scope: Scope<'_>) -> Result<String, Fault> {
        match self {
            Self::Literal(text) => Ok(text.clone()),
            Self::Name => scope.name.map(str::to_owned).ok_or(Fault::NameInName),
            Self::Cluster => Ok(scope.cluster.to_owned()),
            Self::Sum(terms) => sum(terms, scope.ordinal).map(|n| n.to_string()).ok_or(Fault::TooLarge),
        }
    }
}

fn product(term: &str, sum: &str) -> Result<Vec<Factor>, Fault> {
    term.split('*').map(|factor| Factor::parse(factor.trim(), sum)).collect()
}

fn sum(terms: &[Vec<Factor>], ordinal: u32) -> Option<u64> {
    terms.iter().try_fold(0u64, |total, factors| {
        let product = factors.iter().try_fold(1u64, |product, factor| match factor {
            Factor::Number(number) => product.checked_mul(*number),
            Factor::Ordinal => product.checked_mul(u64::from(ordinal)),
        })?;
        total.checked_add(product)
    })
}

impl Factor {
    fn parse(text: &str, sum: &str) -> Result<Self, Fault> {
        match text {
            "ordinal" => Ok(Self::Ordinal),
            digits if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map(Self::Number).map_err(|_| Fault::TooLarge)
            }
            word if !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_') => {
                Err(Fault::UnknownVariable(word.to_owned()))
            }
            _ => Err(Fault::NotASum(sum.to_owned())),
        }
    }
}

/// The variables, for help texts.
#[derive(Debug, Clone, Copy)]
pub struct Variables;

impl fmt::Display for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("between braces stands `ordinal`, `name`, `cluster`, or a sum such as `6000 + 100 * ordinal`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluate(template: &str, ordinal: u32) -> Result<String, Fault> {
        let scope = Scope { ordinal, name: Some("balsa-2"), cluster: "balsa" };
        Template::parse(template).map_err(|error| error.fault)?.evaluate(scope)
    }

    #[test]
    fn a_template_is_filled_in_for_a_node() {
        assert_eq!(evaluate("127.0.0.1:{6000 + 100 * ordinal}", 2).unwrap(), "127.0.0.1:6200");
        assert_eq!(evaluate("{name}.{cluster}-headless:6001", 2).unwrap(), "balsa-2.balsa-headless:6001");
        assert_eq!(evaluate("{ ordinal }", 7).unwrap(), "7");
        assert_eq!(evaluate("{ordinal*2+1}", 7).unwrap(), "15");
        assert_eq!(evaluate("", 0).unwrap(), "");
        assert_eq!(evaluate("[::1]:6000", 0).unwrap(), "[::1]:6000");
    }

    #[test]
    fn a_broken_template_says_which_bytes_are_to_blame() {
        let blame = |text: &str| {
            let error = Template::parse(text).unwrap_err();
            format!("{}: {error}", &text[error.at.clone()])
        };
        assert_eq!(blame("a{ordinal"), "{: this `{` is never closed");
        assert_eq!(blame("a{{ordinal}"), "{: this `{` is never closed");
        assert_eq!(blame("a}"), "}: this `}` closes nothing");
        assert_eq!(blame("a{ }b"), "{ }: there is nothing between these braces");
        assert_eq!(blame("a{ordnal}b"), "{ordnal}: there is no variable `ordnal`");
        assert_eq!(
            blame("{6000 - ordinal}"),
            "{6000 - ordinal}: `6000 - ordinal` is not a sum such as `6000 + 100 * ordinal`"
        );
        assert_eq!(blame("{1 +}"), "{1 +}: `1 +` is not a sum such as `6000 + 100 * ordinal`");
    }

    #[test]
    fn a_number_that_does_not_fit_is_an_error_and_not_a_panic() {
        assert_eq!(evaluate("{18446744073709551615 * ordinal}", 2), Err(Fault::TooLarge));
        assert_eq!(evaluate("{18446744073709551616}", 2), Err(Fault::TooLarge));
    }

    #[test]
    fn only_what_names_the_node_differs_between_nodes() {
        let constant = |text| Template::parse(text).unwrap().is_constant();
        assert!(constant("0.0.0.0:{6000 + 1}") && constant("{cluster}"));
        assert!(!constant("{name}") && !constant("{2 * ordinal}"));
    }
}
