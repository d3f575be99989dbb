//! What is to be done about the files' wishes: the difference between what they ask for and what was answered.

use std::collections::BTreeMap;

use crate::limits::Replicated;
use crate::proto::admin::{ModuleWish, Wish};
use crate::proto::command::Decided;

/// Something that the files ask for and the log has not answered.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Open {
    /// This module, under its name.
    Activate(ModuleWish),
    /// No module of this name: its entry is gone.
    Stop(String),
    /// These limits.
    Limits(Replicated),
}

/// What `wish` asks for beyond what was `decided`, in order of the names; limits first, since a migration runs under them.
///
/// A wish that was answered is answered for good, with a yes or a no: asked again it changes nothing, so a module that an
/// operator has pushed since stays. A name that the files never mentioned is none of their business.
pub(super) fn open(wish: &Wish, decided: &BTreeMap<String, Decided>, limits: &Replicated) -> Vec<Open> {
    let wanted = wish.limits.map(Replicated::from).filter(|wanted| wanted != limits).map(Open::Limits);
    let unanswered = |module: &&ModuleWish| decided.get(&module.name).is_none_or(|last| last.wish != module.wish);
    let activate = wish.modules.iter().filter(unanswered).cloned().map(Open::Activate);
    let is_wanted = |name: &str| wish.modules.iter().any(|module| module.name == name);
    let gone = decided.iter().filter(|(name, last)| !last.wish.is_empty() && !is_wanted(name));
    wanted.into_iter().chain(gone.map(|(name, _)| Open::Stop(name.clone()))).chain(activate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(name: &str, wish: &'static str) -> ModuleWish {
        ModuleWish { name: name.into(), wish: wish.as_bytes().into(), ..ModuleWish::default() }
    }

    fn wish(modules: &[(&str, &'static str)]) -> Wish {
        let modules = modules.iter().map(|(name, wish)| module(name, wish)).collect();
        Wish { modules, limits: Some(Replicated::default().into()), ..Wish::default() }
    }

    fn decided(rows: &[(&str, &'static str)]) -> BTreeMap<String, Decided> {
        let row = |wish: &'static str| Decided { wish: wish.as_bytes().into(), index: 7, refused: false };
        rows.iter().map(|(name, wish)| ((*name).to_owned(), row(wish))).collect()
    }

    fn open_of(wanted: &[(&str, &'static str)], answered: &[(&str, &'static str)]) -> Vec<Open> {
        open(&wish(wanted), &decided(answered), &Replicated::default())
    }

    #[test]
    fn what_was_answered_is_not_asked_again() {
        assert_eq!(open_of(&[("ledger", "v1")], &[("ledger", "v1")]), []);
    }

    #[test]
    fn another_file_is_a_new_wish_and_so_is_the_old_one_after_it() {
        assert_eq!(open_of(&[("ledger", "v2")], &[("ledger", "v1")]), [Open::Activate(module("ledger", "v2"))]);
        assert_eq!(open_of(&[("ledger", "v1")], &[("ledger", "v2")]), [Open::Activate(module("ledger", "v1"))]);
    }

    #[test]
    fn an_entry_that_is_gone_stops_its_module_once() {
        assert_eq!(open_of(&[], &[("ledger", "v1")]), [Open::Stop("ledger".into())]);
        assert_eq!(open_of(&[], &[("ledger", "")]), [], "stopped already");
        assert_eq!(open_of(&[("ledger", "v1")], &[("ledger", "")]), [Open::Activate(module("ledger", "v1"))]);
    }

    #[test]
    fn stopping_comes_before_starting_so_that_a_service_can_change_hands() {
        let open = open_of(&[("new", "v1")], &[("old", "v1")]);
        assert_eq!(open, [Open::Stop("old".into()), Open::Activate(module("new", "v1"))]);
    }

    #[test]
    fn limits_are_compared_with_those_in_force() {
        let limits = Replicated { query_fuel: 1_000_000, ..Replicated::default() };
        let open = open(&wish(&[]), &decided(&[]), &limits);
        assert_eq!(open, [Open::Limits(Replicated::default())]);
    }
}
