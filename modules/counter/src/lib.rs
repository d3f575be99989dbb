//! Counters with names: the smallest module that is of use. Copy it to begin one of your own.

use balsa_sdk::{Context, Map, Start, Status, View, page_limit};

#[cfg(test)]
mod tests;

balsa_sdk::include_proto!("counter.v1");

/// All of the state: what each counter is.
const VALUES: Map<String, i64> = Map::new("values");

/// Bytes of a name, so that a list has room for its counters.
const NAME_MAX: usize = 256;
/// Counters of one list.
const LIST_MAX: usize = 1000;

struct Counters;

impl Counter for Counters {
    fn add(ctx: &mut Context, request: AddRequest) -> Result<AddResponse, Status> {
        let AddRequest { name, amount } = request;
        check_name(&name)?;
        let value = VALUES.get_or_default(ctx, &name)?;
        let Some(sum) = value.checked_add(amount) else {
            return Err(Status::out_of_range(format!("{value} + {amount} does not fit 64 bits")));
        };
        VALUES.insert(ctx, &name, &sum)?;
        Ok(AddResponse { value: sum })
    }

    fn remove(ctx: &mut Context, request: RemoveRequest) -> Result<RemoveResponse, Status> {
        check_name(&request.name)?;
        let value = VALUES.take(ctx, &request.name)?.unwrap_or_default();
        Ok(RemoveResponse { value })
    }

    fn get(ctx: &View, request: GetRequest) -> Result<GetResponse, Status> {
        check_name(&request.name)?;
        Ok(GetResponse { value: VALUES.get_or_default(ctx, &request.name)? })
    }

    fn list(ctx: &View, request: ListRequest) -> Result<ListResponse, Status> {
        check_length(&request.prefix)?;
        let limit = page_limit(request.limit, LIST_MAX);
        let page = VALUES.prefix(ctx, &Start(request.prefix)).page(ctx, limit, &request.page_token)?;
        let counters = page.entries.into_iter().map(|(name, value)| Entry { name, value }).collect();
        Ok(ListResponse { counters, next_page_token: page.next })
    }
}

balsa_sdk::export!(CounterServer<Counters>);

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
