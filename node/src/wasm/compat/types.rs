//! Messages and enums, old beside new, as far as methods reach them.
//!
//! A queue and not recursion, since a chain of types may be as long as a module's author likes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use prost_reflect::{
    Cardinality, EnumDescriptor, EnumValueDescriptor, FieldDescriptor, Kind, MessageDescriptor, OneofDescriptor,
};

use super::difference::{Change, Difference, FieldChange, ValueChange};

/// Types that were reached, each with the first method that does.
#[derive(Default)]
pub(super) struct Types {
    seen: BTreeSet<String>,
    queue: VecDeque<(String, Pair)>,
}

/// One type, before and after. Both have the same name.
enum Pair {
    Message(MessageDescriptor, MessageDescriptor),
    Enum(EnumDescriptor, EnumDescriptor),
}

impl Types {
    /// Notes that `at` reaches this message.
    pub(super) fn reach_message(&mut self, at: &str, was: MessageDescriptor, is: MessageDescriptor) {
        if self.seen.insert(was.full_name().to_owned()) {
            self.queue.push_back((at.to_owned(), Pair::Message(was, is)));
        }
    }

    fn reach_enum(&mut self, at: &str, was: EnumDescriptor, is: EnumDescriptor) {
        if self.seen.insert(was.full_name().to_owned()) {
            self.queue.push_back((at.to_owned(), Pair::Enum(was, is)));
        }
    }

    /// Compares all that was reached, and what that reaches.
    pub(super) fn compare(mut self, found: &mut Vec<Difference>) {
        while let Some((at, pair)) = self.queue.pop_front() {
            match pair {
                Pair::Message(was, is) => self.compare_message(&at, &was, &is, found),
                Pair::Enum(was, is) => compare_enum(&at, &was, &is, found),
            }
        }
    }

    fn compare_message(
        &mut self,
        at: &str,
        was: &MessageDescriptor,
        is: &MessageDescriptor,
        found: &mut Vec<Difference>,
    ) {
        let mut report = |field: &FieldDescriptor, change: FieldChange| {
            let (message, name) = (was.full_name().to_owned(), field.name().to_owned());
            found.push(Change::Field { message, number: field.number(), name, change }.at(at));
        };
        let moved = moved(was, is);
        for before in by_number(was) {
            match is.get_field(before.number()) {
                Some(after) => {
                    compare_field(&before, &after).into_iter().for_each(|change| report(&before, change));
                    if moved.contains(&before.number()) {
                        let name = |field: &FieldDescriptor| oneof(field).map(|oneof| oneof.name().to_owned());
                        report(&before, FieldChange::Oneof(name(&before), name(&after)));
                    }
                    self.reach_type(at, &before, &after);
                }
                None => {
                    let renumbered = is.get_field_by_name(before.name()).map(|after| after.number());
                    match renumbered {
                        Some(number) => report(&before, FieldChange::Number(number)),
                        None if reserves(is, before.number(), before.name()) => {}
                        None => report(&before, FieldChange::Removed),
                    }
                }
            }
        }
        for new in by_number(is).filter(|field| was.get_field(field.number()).is_none()) {
            if let Some(change) = intrudes(was, &new) {
                report(&new, change);
            }
        }
    }

    /// What a field that kept its type leads to.
    fn reach_type(&mut self, at: &str, before: &FieldDescriptor, after: &FieldDescriptor) {
        match (held(before), held(after)) {
            (Kind::Message(was), Kind::Message(is)) if was.full_name() == is.full_name() => {
                self.reach_message(at, was, is);
            }
            (Kind::Enum(was), Kind::Enum(is)) if was.full_name() == is.full_name() => self.reach_enum(at, was, is),
            _ => {}
        }
    }
}

fn by_number(message: &MessageDescriptor) -> impl Iterator<Item = FieldDescriptor> + use<> {
    message.fields().map(|field| (field.number(), field)).collect::<BTreeMap<_, _>>().into_values()
}

/// Fields of one number. Its oneof is compared over the whole message.
fn compare_field(before: &FieldDescriptor, after: &FieldDescriptor) -> Vec<FieldChange> {
    let mut changes = Vec::new();
    let text = |field: &FieldDescriptor| (label(field), rendered(field));
    let ((was_label, was_type), (is_label, is_type)) = (text(before), text(after));
    if was_type != is_type || !is_label.can_replace(was_label) {
        let line = |label: Label, name: &str| format!("{}{name}", label.name());
        changes.push(FieldChange::Type(line(was_label, &was_type), line(is_label, &is_type)));
    }
    if before.name() != after.name() {
        changes.push(FieldChange::Name(after.name().to_owned()));
    } else if before.json_name() != after.json_name() {
        changes.push(FieldChange::JsonName(before.json_name().to_owned(), after.json_name().to_owned()));
    }
    let default = |field: &FieldDescriptor| field.field_descriptor_proto().default_value.clone();
    let (was, is) = (default(before), default(after));
    if was != is {
        let shown = |default: Option<String>| default.unwrap_or_else(|| "of its type".into());
        changes.push(FieldChange::Default(shown(was), shown(is)));
    }
    changes
}

/// How often a field may be there, and whether one can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    /// It is always there: absent is its default.
    Plain,
    Optional,
    Required,
    Repeated,
    /// Its type or its oneof says it: messages, maps, members of a oneof.
    Implied,
}

impl Label {
    fn name(self) -> &'static str {
        match self {
            Self::Plain | Self::Implied => "",
            Self::Optional => "optional ",
            Self::Required => "required ",
            Self::Repeated => "repeated ",
        }
    }

    /// A field that learns to say that it is absent does so only to those who look.
    fn can_replace(self, was: Self) -> bool {
        let strict = |label| matches!(label, Self::Repeated | Self::Required);
        let loses_presence = (was, self) == (Self::Optional, Self::Plain);
        self == was || !(strict(was) || strict(self) || loses_presence)
    }
}

fn label(field: &FieldDescriptor) -> Label {
    match field.cardinality() {
        Cardinality::Repeated if map(field).is_some() => Label::Implied,
        Cardinality::Repeated => Label::Repeated,
        Cardinality::Required => Label::Required,
        Cardinality::Optional if matches!(field.kind(), Kind::Message(_)) || oneof(field).is_some() => Label::Implied,
        Cardinality::Optional if field.supports_presence() => Label::Optional,
        Cardinality::Optional => Label::Plain,
    }
}

/// Key and value of a map. A module may call anything a map, so they may be missing.
fn map(field: &FieldDescriptor) -> Option<(Kind, Kind)> {
    let Kind::Message(entry) = field.kind() else { return None };
    if !field.is_map() {
        return None;
    }
    Some((entry.get_field(1)?.kind(), entry.get_field(2)?.kind()))
}

/// A field's type, or that of a map's values: what it leads to.
fn held(field: &FieldDescriptor) -> Kind {
    map(field).map_or_else(|| field.kind(), |(_, value)| value)
}

fn rendered(field: &FieldDescriptor) -> String {
    match map(field) {
        Some((key, value)) => format!("map<{}, {}>", type_name(&key), type_name(&value)),
        None if field.is_group() => format!("group {}", type_name(&field.kind())),
        None => type_name(&field.kind()),
    }
}

fn type_name(kind: &Kind) -> String {
    match kind {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(enumeration) => format!("enum {}", enumeration.full_name()),
        scalar => format!("{scalar:?}"),
    }
}

/// The oneof that an author wrote; proto3's `optional` has one of its own, which is not meant.
fn oneof(field: &FieldDescriptor) -> Option<OneofDescriptor> {
    field.containing_oneof().filter(|oneof| !oneof.is_synthetic())
}

/// Numbers of fields that share their oneof with others than before. Its name does not matter: it is not on the wire, nor in JSON.
fn moved(was: &MessageDescriptor, is: &MessageDescriptor) -> BTreeSet<u32> {
    let common: BTreeSet<u32> =
        was.fields().map(|field| field.number()).filter(|number| is.get_field(*number).is_some()).collect();
    let before = companies(was, &common);
    let after = companies(is, &common);
    let stayed = |number: &u32| {
        let name = |message: &MessageDescriptor| {
            let field = message.get_field(*number)?;
            oneof(&field).map(|oneof| oneof.name().to_owned())
        };
        before.get(number) == after.get(number) || name(was) == name(is)
    };
    common.iter().copied().filter(|number| !stayed(number)).collect()
}

/// Of each field in a oneof, the fields in it.
fn companies(message: &MessageDescriptor, of: &BTreeSet<u32>) -> BTreeMap<u32, BTreeSet<u32>> {
    let mut companies = BTreeMap::new();
    for oneof in message.oneofs().filter(|oneof| !oneof.is_synthetic()) {
        let members: BTreeSet<u32> = oneof.fields().map(|field| field.number()).filter(|n| of.contains(n)).collect();
        companies.extend(members.iter().map(|member| (*member, members.clone())));
    }
    companies
}

/// Whether nothing can come in the place of a field that went.
fn reserves(message: &MessageDescriptor, number: u32, name: &str) -> bool {
    reserves_number(message, number) && message.reserved_names().any(|reserved| reserved == name)
}

fn reserves_number(message: &MessageDescriptor, number: u32) -> bool {
    message.reserved_ranges().any(|range| range.contains(&number))
}

/// What is wrong with a new field.
fn intrudes(was: &MessageDescriptor, new: &FieldDescriptor) -> Option<FieldChange> {
    // A field that was renumbered is reported already.
    let renumbered = was.get_field_by_name(new.name()).is_some();
    if renumbered {
        None
    } else if reserves_number(was, new.number()) {
        Some(FieldChange::Reserved("number"))
    } else if was.reserved_names().any(|reserved| reserved == new.name()) {
        Some(FieldChange::Reserved("name"))
    } else {
        new.is_required().then_some(FieldChange::Required)
    }
}

fn compare_enum(at: &str, was: &EnumDescriptor, is: &EnumDescriptor, found: &mut Vec<Difference>) {
    let mut report = |value: &EnumValueDescriptor, change: ValueChange| {
        let (enumeration, name) = (was.full_name().to_owned(), value.name().to_owned());
        found.push(Change::Value { enumeration, number: value.number(), name, change }.at(at));
    };
    for before in by_value(was) {
        match (is.get_value_by_name(before.name()), is.get_value(before.number())) {
            (Some(after), _) if after.number() == before.number() => {}
            (Some(after), _) => report(&before, ValueChange::Number(after.number())),
            (None, Some(after)) => report(&before, ValueChange::Name(after.name().to_owned())),
            (None, None) if retired(is, before.number(), before.name()) => {}
            (None, None) => report(&before, ValueChange::Removed),
        }
    }
    for new in by_value(is).filter(|value| was.get_value_by_name(value.name()).is_none()) {
        if holds_number(was, new.number()) {
            report(&new, ValueChange::Reserved("number"));
        } else if was.reserved_names().any(|reserved| reserved == new.name()) {
            report(&new, ValueChange::Reserved("name"));
        }
    }
}

/// By number, and where several names have one, by name.
fn by_value(enumeration: &EnumDescriptor) -> impl Iterator<Item = EnumValueDescriptor> + use<> {
    let values = enumeration.values().map(|value| ((value.number(), value.name().to_owned()), value));
    values.collect::<BTreeMap<_, _>>().into_values()
}

fn retired(enumeration: &EnumDescriptor, number: i32, name: &str) -> bool {
    holds_number(enumeration, number) && enumeration.reserved_names().any(|reserved| reserved == name)
}

fn holds_number(enumeration: &EnumDescriptor, number: i32) -> bool {
    enumeration.reserved_ranges().any(|range| range.contains(&number))
}
