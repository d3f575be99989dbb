//! What the SDK does not let a module do: the bare imports of ABI 1, called wrongly, and an entry that can lie.
//!
//! Natively there are no imports; all of it answers UNIMPLEMENTED.

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use native::*;
#[cfg(target_arch = "wasm32")]
pub(crate) use wasm::*;

#[cfg(target_arch = "wasm32")]
mod wasm {
    //! Most of these calls are wrong on purpose. That is sound all the same: the host checks every pointer and length against
    //! the guest's memory and traps before it reads or writes, and no Rust code goes on after a trap. Those that are right
    //! pass slices that live for the call.
    #![allow(unsafe_code)]

    use std::hint::black_box;
    use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

    use balsa_sdk::{Service, Status, private};

    use crate::{Empty, Fixture, HostileServer, Wild};

    #[link(wasm_import_module = "balsa_v1")]
    unsafe extern "C" {
        #[link_name = "input_read"]
        fn balsa_input_read(buffer: u32, offset: u32, len: u32);
        #[link_name = "output"]
        fn balsa_output(bytes: u32, len: u32);
        #[link_name = "get"]
        fn balsa_get(key: u32, key_len: u32, buffer: u32, capacity: u32) -> i64;
        #[link_name = "result_read"]
        fn balsa_result_read(buffer: u32, offset: u32, len: u32);
        #[link_name = "put"]
        fn balsa_put(key: u32, key_len: u32, value: u32, value_len: u32);
        #[link_name = "delete"]
        fn balsa_delete(key: u32, key_len: u32) -> i32;
        #[link_name = "scan"]
        fn balsa_scan(
            start: u32,
            start_len: u32,
            end: u32,
            end_len: u32,
            flags: u32,
            limit: u32,
            budget: u32,
            buffer: u32,
            capacity: u32,
        ) -> i64;
        #[link_name = "context"]
        fn balsa_context(buffer: u32, capacity: u32) -> u32;
        #[link_name = "log"]
        fn balsa_log(level: u32, text: u32, len: u32);
        #[link_name = "panic"]
        fn balsa_panic(text: u32, len: u32);
    }

    #[link(wasm_import_module = "wasi_snapshot_preview1")]
    unsafe extern "C" {
        #[link_name = "random_get"]
        fn wasi_random_get(buffer: u32, len: u32) -> u32;
        #[link_name = "fd_write"]
        fn wasi_fd_write(fd: u32, vectors: u32, count: u32, written: u32) -> u32;
        #[link_name = "clock_time_get"]
        fn wasi_clock_time_get(clock: u32, precision: u64, time: u32) -> u32;
    }

    /// No result code is this one: [`balsa_call`] answers as every module does.
    const HONEST: i32 = i32::MIN;

    static ANSWER: AtomicI32 = AtomicI32::new(HONEST);

    /// Makes the call end with `code` and without the SDK's output.
    pub(crate) fn answer_with(code: i32) {
        ANSWER.store(code, Relaxed);
    }

    balsa_sdk::export_metadata!();

    #[unsafe(no_mangle)]
    extern "C" fn balsa_call(method: u32, input_len: u32) -> i32 {
        private::report_panics();
        let result = HostileServer::<Fixture>::call(&mut private::context(), method, private::input(input_len));
        let code = ANSWER.load(Relaxed);
        if code == HONEST { private::reply(result) as i32 } else { code }
    }

    #[unsafe(no_mangle)]
    extern "C" fn balsa_migrate(from_len: u32) -> i32 {
        private::report_panics();
        let from = private::input(from_len);
        let result = crate::migrate::migrate(&mut private::context(), &String::from_utf8_lossy(&from));
        let code = ANSWER.load(Relaxed);
        if code == HONEST { private::transition(result) as i32 } else { code }
    }

    fn address(bytes: &[u8]) -> u32 {
        bytes.as_ptr() as u32
    }

    pub(crate) fn output(bytes: &[u8]) -> Result<(), Status> {
        unsafe { balsa_output(address(bytes), bytes.len() as u32) };
        Ok(())
    }

    pub(crate) fn put(key: &[u8], value: &[u8]) -> Result<Empty, Status> {
        unsafe { balsa_put(address(key), key.len() as u32, address(value), value.len() as u32) };
        Ok(Empty {})
    }

    pub(crate) fn delete(key: &[u8]) -> Result<Empty, Status> {
        unsafe { balsa_delete(address(key), key.len() as u32) };
        Ok(Empty {})
    }

    pub(crate) fn scan(flags: u32, limit: u32, budget: u32) -> Result<Vec<u8>, Status> {
        let len = unsafe { balsa_scan(0, 0, 0, 0, flags, limit, budget, 0, 0) };
        let mut page = vec![0; len as usize];
        unsafe { balsa_result_read(page.as_mut_ptr() as u32, 0, page.len() as u32) };
        Ok(page)
    }

    pub(crate) fn random() -> Result<Vec<u8>, Status> {
        let mut bytes = vec![0; 32];
        let (first, second) = bytes.split_at_mut(16);
        for half in [first, second] {
            let errno = unsafe { wasi_random_get(half.as_mut_ptr() as u32, 16) };
            if errno != 0 {
                return Err(Status::internal(format!("random_get gave errno {errno}")));
            }
        }
        Ok(bytes)
    }

    pub(crate) fn memory_grow(pages: u32) -> Result<i32, Status> {
        Ok(core::arch::wasm32::memory_grow::<0>(pages as usize) as i32)
    }

    /// Where no memory of at most 4 GiB less 64 KiB is.
    const OUTSIDE: u32 = 0xffff_fff0;
    /// More than the memory that is behind any address, together with it less than 4 GiB.
    const TOO_LONG: u32 = 0x7fff_0000;

    /// Calls one import wrongly. That it returns at all is worth a status.
    pub(crate) fn wild(wild: Wild) -> Result<Empty, Status> {
        let key = b"trace";
        let here = address(key);
        let mut buffer = [0_u8; 64];
        let room = buffer.as_mut_ptr() as u32;
        unsafe {
            match wild {
                Wild::InputReadPointer => balsa_input_read(OUTSIDE, 0, 1),
                Wild::InputReadRange => balsa_input_read(room, 0, 64),
                Wild::InputReadOverflow => balsa_input_read(room, u32::MAX, 2),
                Wild::OutputPointer => balsa_output(OUTSIDE, 64),
                Wild::GetKey => drop(balsa_get(OUTSIDE, 64, room, 64)),
                Wild::GetBuffer => drop(balsa_get(here, 5, OUTSIDE, 64)),
                Wild::GetBufferAbsent => drop(balsa_get(here, 4, room, TOO_LONG)),
                Wild::ResultReadPointer => {
                    balsa_get(here, 5, room, 0);
                    balsa_result_read(OUTSIDE, 0, 5);
                }
                Wild::ResultReadNothing => balsa_result_read(room, 0, 1),
                Wild::PutKey => balsa_put(OUTSIDE, 64, here, 5),
                Wild::PutValue => balsa_put(here, 5, OUTSIDE, 64),
                Wild::DeleteKey => drop(balsa_delete(OUTSIDE, 64)),
                Wild::ScanStart => drop(balsa_scan(OUTSIDE, 64, here, 5, 0, 1, 64, room, 64)),
                Wild::ScanEnd => drop(balsa_scan(here, 5, OUTSIDE, 64, 0, 1, 64, room, 64)),
                Wild::ScanBuffer => drop(balsa_scan(here, 0, here, 0, 4, 1, 64, OUTSIDE, 64)),
                Wild::ScanFlags => drop(balsa_scan(here, 0, here, 0, 0x8000_0004, 1, 64, room, 64)),
                Wild::ContextPointer => drop(balsa_context(OUTSIDE, 48)),
                Wild::LogPointer => balsa_log(3, OUTSIDE, 64),
                Wild::LogLevel => balsa_log(0, here, 5),
                Wild::PanicPointer => balsa_panic(OUTSIDE, 64),
                Wild::WasiRandomPointer => drop(wasi_random_get(OUTSIDE, 64)),
                Wild::WasiFdWritePointer => drop(wasi_fd_write(1, OUTSIDE, 1, room)),
                Wild::WasiClockPointer => drop(wasi_clock_time_get(0, 0, OUTSIDE)),
            }
        }
        black_box(buffer);
        Err(Status::internal("the host let a wild call pass"))
    }

    pub(crate) fn read_out_of_bounds() -> Result<Empty, Status> {
        // The one load that is not the host's to check but the engine's; it traps, so no value comes of it.
        let byte = unsafe { std::ptr::read_volatile(black_box(OUTSIDE) as *const u8) };
        Err(Status::internal(format!("read {byte} out of bounds")))
    }

    pub(crate) fn divide_by_zero() -> Result<Empty, Status> {
        let divisor = black_box(0_u32);
        if divisor == 0 {
            // Not true, and undefined in Rust: it makes the compiler leave its own check out, so that the engine's is met.
            unsafe { std::hint::unreachable_unchecked() };
        }
        Err(Status::internal(format!("divided by zero: {}", black_box(7) / divisor)))
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod native {
    //! The same functions for a compiler that checks, and tests that do not call them.

    use balsa_sdk::Status;

    use crate::{Empty, Wild};

    fn only_in_wasm<T>() -> Result<T, Status> {
        Err(Status::unimplemented("needs the imports of a real host"))
    }

    pub(crate) fn answer_with(_: i32) {}

    pub(crate) fn output(_: &[u8]) -> Result<(), Status> {
        only_in_wasm()
    }

    pub(crate) fn put(_: &[u8], _: &[u8]) -> Result<Empty, Status> {
        only_in_wasm()
    }

    pub(crate) fn delete(_: &[u8]) -> Result<Empty, Status> {
        only_in_wasm()
    }

    pub(crate) fn scan(_: u32, _: u32, _: u32) -> Result<Vec<u8>, Status> {
        only_in_wasm()
    }

    pub(crate) fn random() -> Result<Vec<u8>, Status> {
        only_in_wasm()
    }

    pub(crate) fn memory_grow(_: u32) -> Result<i32, Status> {
        only_in_wasm()
    }

    pub(crate) fn wild(_: Wild) -> Result<Empty, Status> {
        only_in_wasm()
    }

    pub(crate) fn read_out_of_bounds() -> Result<Empty, Status> {
        only_in_wasm()
    }

    pub(crate) fn divide_by_zero() -> Result<Empty, Status> {
        only_in_wasm()
    }
}
