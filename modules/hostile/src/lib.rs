//! A module that does what a module must not do, so that tests can see the host survive it.
//!
//! `proto/hostile.proto` says what each method does and how the call should end. What the SDK makes impossible goes through
//! [`raw`], the bare imports, and the module has an entry of its own there. Natively, where there are no imports, such methods
//! only answer UNIMPLEMENTED.

// The entry that uses them is for wasm only; see `raw`.
#![cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]

mod migrate;
mod raw;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::hint::black_box;
use std::time::{Instant, SystemTime};

use balsa_sdk::{Any, Bytes, Code, Context, Sender, Status, View};

balsa_sdk::include_proto!("hostile.v1");

const COUNTER: &[u8] = b"counter";
const TRACE: &[u8] = b"trace";
const MANY: &str = "many/";

struct Fixture;

impl Hostile for Fixture {
    fn echo(_: &mut Context, request: Payload) -> Result<Payload, Status> {
        Ok(request)
    }

    fn put(ctx: &mut Context, request: PutRequest) -> Result<Empty, Status> {
        ctx.put(&request.key, &request.value);
        Ok(Empty {})
    }

    fn get(ctx: &View, request: GetRequest) -> Result<GetResponse, Status> {
        Ok(GetResponse { value: ctx.get(&request.key) })
    }

    fn add(ctx: &mut Context, request: AddRequest) -> Result<TotalResponse, Status> {
        let total = total(ctx).wrapping_add(request.amount);
        ctx.put(COUNTER, &total.to_le_bytes());
        Ok(TotalResponse { total })
    }

    fn total(ctx: &View, _: Empty) -> Result<TotalResponse, Status> {
        Ok(TotalResponse { total: total(ctx) })
    }

    fn spin(ctx: &mut Context, _: Empty) -> Result<Empty, Status> {
        leave_trace(ctx);
        spin()
    }

    fn spin_query(_: &View, _: Empty) -> Result<Empty, Status> {
        spin()
    }

    fn recurse(ctx: &mut Context, request: RecurseRequest) -> Result<Empty, Status> {
        leave_trace(ctx);
        let depth = if request.depth == 0 { u64::MAX } else { request.depth.into() };
        black_box(descend(depth));
        Ok(Empty {})
    }

    fn allocate(ctx: &mut Context, request: AllocateRequest) -> Result<Empty, Status> {
        leave_trace(ctx);
        let bytes = if request.bytes == 0 { u64::MAX } else { request.bytes };
        hoard(bytes);
        Ok(Empty {})
    }

    fn grow(_: &mut Context, request: GrowRequest) -> Result<GrowResponse, Status> {
        Ok(GrowResponse { result: raw::memory_grow(request.pages)? })
    }

    fn trap(_: &mut Context, _: Empty) -> Result<Empty, Status> {
        panic!("hostile panics on purpose");
    }

    fn put_then_trap(ctx: &mut Context, _: Empty) -> Result<Empty, Status> {
        leave_trace(ctx);
        ctx.delete(COUNTER);
        panic!("hostile panics after writing");
    }

    fn put_then_fail(ctx: &mut Context, _: Empty) -> Result<Empty, Status> {
        leave_trace(ctx);
        ctx.delete(COUNTER);
        let detail = Payload { payload: Bytes::from_static(b"why") };
        Err(Status::failed_precondition("hostile fails on purpose").with_detail(&detail))
    }

    fn fail(_: &mut Context, request: FailRequest) -> Result<Empty, Status> {
        let status = Status::new(code(request.code)?, request.message);
        if request.detail_bytes == 0 {
            return Err(status);
        }
        let value = vec![b'd'; request.detail_bytes as usize];
        Err(status.with_any(Any { type_url: "type.googleapis.com/hostile.v1.Payload".into(), value }))
    }

    fn write_in_query(_: &View, _: Empty) -> Result<Empty, Status> {
        raw::put(TRACE, b"query")
    }

    fn delete_in_query(_: &View, _: Empty) -> Result<Empty, Status> {
        raw::delete(TRACE)
    }

    fn garbage(ctx: &mut Context, request: GarbageRequest) -> Result<Empty, Status> {
        leave_trace(ctx);
        raw::answer_with(request.code);
        if request.output > 0 {
            raw::output(&vec![0xff; request.output as usize])?;
        }
        Ok(Empty {})
    }

    fn garbage_output(_: &mut Context, _: Empty) -> Result<Payload, Status> {
        raw::answer_with(0);
        // Field 1, a length of 127, and nothing behind it.
        raw::output(&[0x0a, 0x7f])?;
        Ok(Payload::default())
    }

    fn oversize_output(_: &mut Context, request: OversizeOutputRequest) -> Result<Payload, Status> {
        // The tag, and a length of one to five bytes.
        let bytes = request.bytes as usize;
        let length_bytes = (1..=5).find(|n| bytes < 2 + n + (1 << (7 * n))).unwrap_or(5);
        let payload = vec![b'x'; bytes.saturating_sub(1 + length_bytes)];
        Ok(Payload { payload: payload.into() })
    }

    fn no_output(_: &mut Context, _: Empty) -> Result<Empty, Status> {
        raw::answer_with(0);
        Ok(Empty {})
    }

    fn two_outputs(_: &mut Context, _: Empty) -> Result<Empty, Status> {
        raw::output(b"")?;
        Ok(Empty {})
    }

    fn wild_pointer(ctx: &mut Context, request: WildPointerRequest) -> Result<Empty, Status> {
        leave_trace(ctx);
        raw::wild(request.wild())
    }

    fn big_key(ctx: &mut Context, request: BigRequest) -> Result<Empty, Status> {
        ctx.put(&vec![b'K'; request.bytes as usize], b"");
        Ok(Empty {})
    }

    fn big_value(ctx: &mut Context, request: BigRequest) -> Result<Empty, Status> {
        ctx.put(b"big", &vec![b'V'; request.bytes as usize]);
        Ok(Empty {})
    }

    fn big_delete(ctx: &mut Context, request: BigRequest) -> Result<Empty, Status> {
        ctx.delete(&vec![b'K'; request.bytes as usize]);
        Ok(Empty {})
    }

    fn exit(ctx: &mut Context, _: Empty) -> Result<Empty, Status> {
        leave_trace(ctx);
        std::process::exit(7)
    }

    fn out_of_bounds(_: &mut Context, _: Empty) -> Result<Empty, Status> {
        raw::read_out_of_bounds()
    }

    fn divide_by_zero(_: &mut Context, _: Empty) -> Result<Empty, Status> {
        raw::divide_by_zero()
    }

    fn look(ctx: &mut Context, _: Empty) -> Result<LookResponse, Status> {
        look(ctx)
    }

    fn look_query(ctx: &View, _: Empty) -> Result<LookResponse, Status> {
        look(ctx)
    }

    fn float(_: &mut Context, _: Empty) -> Result<FloatResponse, Status> {
        let (zero, one, infinity) = (black_box(0.0_f64), black_box(1.0_f64), black_box(f64::INFINITY));
        let quotient = zero / black_box(zero);
        let nans =
            [quotient, infinity - black_box(infinity), zero * infinity, (-one).sqrt(), -quotient, f64::NAN + one];
        Ok(FloatResponse {
            f32: nans.iter().map(|nan| (*nan as f32).to_bits()).collect(),
            f64: nans.iter().map(|nan| nan.to_bits()).collect(),
        })
    }

    fn log(_: &mut Context, request: LogRequest) -> Result<Empty, Status> {
        let text = "l".repeat(request.bytes as usize);
        for line in 0..request.lines {
            match line % 5 {
                0 => balsa_sdk::error!("{text}"),
                1 => balsa_sdk::warn!("{text}"),
                2 => balsa_sdk::info!("{text}"),
                3 => balsa_sdk::debug!("{text}"),
                _ => balsa_sdk::trace!("{text}"),
            }
        }
        println!("hostile writes to standard output");
        eprintln!("hostile writes to standard error");
        Ok(Empty {})
    }

    fn put_many(ctx: &mut Context, request: PutManyRequest) -> Result<Empty, Status> {
        let value = vec![b'm'; request.value_bytes as usize];
        for number in 0..request.count {
            ctx.put(format!("{MANY}{number:08}").as_bytes(), &value);
        }
        Ok(Empty {})
    }

    fn stream(_: &View, request: StreamRequest, out: &mut Sender<Payload>) -> Result<(), Status> {
        let payload = Bytes::from(vec![b's'; request.bytes as usize]);
        (0..request.count).for_each(|_| out.send(Payload { payload: payload.clone() }));
        match request.ending() {
            Ending::Well => Ok(()),
            Ending::Fail => Err(Status::failed_precondition("hostile fails in mid-stream")),
            Ending::Panic => panic!("hostile panics in mid-stream"),
            Ending::Never => spin(),
            Ending::Write => raw::put(TRACE, b"stream").map(|_| ()),
        }
    }

    fn scan(_: &View, request: ScanRequest) -> Result<ScanResponse, Status> {
        Ok(ScanResponse { page: raw::scan(request.flags, request.limit, request.budget)?.into() })
    }
}

fn total(ctx: &View) -> u64 {
    ctx.get(COUNTER).map_or(0, |bytes| u64::from_le_bytes(bytes[..].try_into().expect("add writes eight bytes")))
}

fn leave_trace(ctx: &mut Context) {
    ctx.put(TRACE, b"left by a call that should have left nothing");
}

fn spin() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

/// Multiplies on the way back, so that no compiler makes a loop of it.
#[inline(never)]
fn descend(depth: u64) -> u64 {
    if depth == 0 { 1 } else { descend(depth - 1).wrapping_mul(depth | 1) ^ depth }
}

/// Keeps what it allocates, a quarter of a MiB at a time, and touches every page of it.
fn hoard(bytes: u64) {
    const CHUNK: u64 = 256 * 1024;
    let mut hoard = Vec::new();
    let mut left = bytes;
    while left > 0 {
        let size = left.min(CHUNK);
        hoard.push(black_box(vec![1_u8; size as usize]));
        left -= size;
    }
    black_box(hoard);
}

fn look(ctx: &View) -> Result<LookResponse, Status> {
    let mut random = ctx.random();
    // The point is that these are not what they are elsewhere.
    #[allow(clippy::disallowed_methods)]
    let (start, system_time) = (Instant::now(), SystemTime::now());
    let system_time = system_time.duration_since(SystemTime::UNIX_EPOCH);
    let system_time = system_time.map_err(|_| Status::internal("the clock is before 1970"))?;
    Ok(LookResponse {
        index: ctx.index(),
        time_ms: ctx.now_ms(),
        random: vec![random.u64(), random.u64()],
        system_time_ns: system_time.as_nanos() as u64,
        instant_difference_ns: start.elapsed().as_nanos() as u64,
        wasi_random: raw::random()?.into(),
        hash: RandomState::new().hash_one("hostile"),
        environment: (std::env::vars().count() + std::env::args().count()) as u32,
    })
}

fn code(number: u32) -> Result<Code, Status> {
    const CODES: [Code; 16] = [
        Code::Cancelled,
        Code::Unknown,
        Code::InvalidArgument,
        Code::DeadlineExceeded,
        Code::NotFound,
        Code::AlreadyExists,
        Code::PermissionDenied,
        Code::ResourceExhausted,
        Code::FailedPrecondition,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unimplemented,
        Code::Internal,
        Code::Unavailable,
        Code::DataLoss,
        Code::Unauthenticated,
    ];
    let index = (number as usize).wrapping_sub(1);
    CODES.get(index).copied().ok_or_else(|| Status::invalid_argument("code is not from 1 to 16"))
}

#[cfg(test)]
mod tests;
