//! Counters with names: the smallest module that is of use. Copy it to begin one of your own.
//!
//! The state is what it looks like: the key is the counter's name, the value its 8 bytes, least significant first. A module
//! that stores more than one kind of thing wants the SDK's `Map`s; `../lock` is the next one to read.

use balsa_sdk::{Context, Range, Status, View};

#[cfg(test)]
mod tests;

balsa_sdk::include_proto!("counter.v1");

struct Counters;

impl Counter for Counters {
    fn add(ctx: &mut Context, request: AddRequest) -> Result<AddResponse, Status> {
        let AddRequest { name, amount } = request;
        check_name(&name)?;
        let value = value(ctx, &name);
        let Some(sum) = value.checked_add(amount) else {
            return Err(Status::out_of_range(format!("{value} + {amount} does not fit 64 bits")));
        };
        ctx.put(name.as_bytes(), &sum.to_le_bytes());
        Ok(AddResponse { value: sum })
    }

    fn remove(ctx: &mut Context, request: RemoveRequest) -> Result<RemoveResponse, Status> {
        check_name(&request.name)?;
        let value = value(ctx, &request.name);
        ctx.delete(request.name.as_bytes());
        Ok(RemoveResponse { value })
    }

    fn get(ctx: &View, request: GetRequest) -> Result<GetResponse, Status> {
        check_name(&request.name)?;
        Ok(GetResponse { value: value(ctx, &request.name) })
    }

    fn list(ctx: &View, request: ListRequest) -> Result<ListResponse, Status> {
        check_length(&request.prefix)?;
        check_length(&request.after)?;
        let limit = if request.limit == 0 { LIST_MAX } else { LIST_MAX.min(request.limit as usize) };
        let behind = [request.after.as_bytes(), b"\0"].concat();
        let range = Range::prefix(request.prefix).starting_at(&behind).limit(limit).page_bytes(LIST_BYTES);
        let page = ctx.scan(&range);
        let counters = page.iter().map(|(name, value)| Entry { name: text(name), value: number(value) }).collect();
        Ok(ListResponse { counters, more: page.has_more() })
    }
}

balsa_sdk::export!(CounterServer<Counters>);

/// Bytes of a name, so that a list has room for its counters.
const NAME_MAX: usize = 256;
/// Counters of one list.
const LIST_MAX: usize = 1000;
/// Room for as many, with 8 bytes of value and 8 of framing.
const LIST_BYTES: usize = LIST_MAX * (NAME_MAX + 16) + 16;

fn check_name(name: &str) -> Result<(), Status> {
    if name.is_empty() {
        return Err(Status::invalid_argument("the name is empty"));
    }
    check_length(name)
}

fn check_length(name: &str) -> Result<(), Status> {
    match name.len() {
        0..=NAME_MAX => Ok(()),
        length => Err(Status::invalid_argument(format!("a name of {length} bytes: at most {NAME_MAX} are allowed"))),
    }
}

/// What a counter is now.
fn value(ctx: &View, name: &str) -> i64 {
    ctx.get(name.as_bytes()).map_or(0, |bytes| number(&bytes))
}

fn number(bytes: &[u8]) -> i64 {
    i64::from_le_bytes(bytes.try_into().expect("only 8 bytes are ever stored"))
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
