//! What makes a crate a module: the exports and the metadata section of ABI 1, and the macros that write them.

/// Includes what `balsa_build::compile` generated for a protobuf package: messages, service traits and servers.
#[macro_export]
macro_rules! include_proto {
    ($package:literal) => {
        include!(concat!(env!("OUT_DIR"), "/", $package, ".rs"));
    };
}

/// Makes the crate a balsa module: `export!(KvStoreServer<Kv>, AdminServer<Kv>, init = init, migrate = migrate)`.
///
/// Every service of the `.proto` files given to `balsa_build::compile` must be listed, once, in any order; the compiler says
/// which one is not. Natively (in tests) this only checks. Beside the services there can be:
///
/// - `init = f` with `fn f(ctx: &mut Context) -> Result<(), Status>`, which runs once, when the module's name is activated for
///   the first time: before any call, on an empty state.
/// - `migrate = g` with `fn g(ctx: &mut Context, from: Version) -> Result<(), Status>`, which runs when this module takes over
///   the state of another one: before any call, with that module's [`Version`](crate::Version). It may be newer than this
///   one's, since going back is a migration, too.
///
/// Both run on every replica at one place of the log, all or nothing. An error, a panic or too much of fuel or writes refuses
/// the module: what was there stays, and the operator is shown the error's message. What would write more than a migration may
/// is better changed row by row, as it is read: see [`Versioned`](crate::Versioned).
#[macro_export]
macro_rules! export {
    ($($part:tt)+) => {
        $crate::export_parts!([] [] [] $($part)+);
    };
}

/// Sorts what `export!` is given into services, `init` and `migrate`.
#[doc(hidden)]
#[macro_export]
macro_rules! export_parts {
    ([] [$($init:expr)?] [$($migrate:expr)?]) => {
        compile_error!("export! lists no service: give it the server of each, as in export!(CounterServer<MyCounter>)");
    };
    ([$($server:ty,)+] [$($init:expr)?] [$($migrate:expr)?]) => {
        $crate::export_module!([$($server,)+] [$($init)?] [$($migrate)?]);
    };
    ([$($server:ty,)*] [] [$($migrate:expr)?] init = $init:expr $(, $($rest:tt)*)?) => {
        $crate::export_parts!([$($server,)*] [$init] [$($migrate)?] $($($rest)*)?);
    };
    ([$($server:ty,)*] [$($init:expr)?] [] migrate = $migrate:expr $(, $($rest:tt)*)?) => {
        $crate::export_parts!([$($server,)*] [$($init)?] [$migrate] $($($rest)*)?);
    };
    ([$($server:ty,)*] [$($init:expr)?] [$($migrate:expr)?] $name:ident = $($rest:tt)*) => {
        compile_error!(concat!(
            "export! takes `init = f` and `migrate = g`, each once; `", stringify!($name), "` is another one, or one again"
        ));
    };
    ([$($server:ty,)*] [$($init:expr)?] [$($migrate:expr)?] $next:ty $(, $($rest:tt)*)?) => {
        $crate::export_parts!([$($server,)* $next,] [$($init)?] [$($migrate)?] $($($rest)*)?);
    };
}

/// The checks, and the exports if there is somebody to export to.
#[doc(hidden)]
#[macro_export]
macro_rules! export_module {
    ([$($server:ty,)+] [$($init:expr)?] [$($migrate:expr)?]) => {
        const _: () = {
            const _: () = $crate::private::check(
                &[$(<$server as $crate::Service>::NAME),+],
                include!(concat!(env!("OUT_DIR"), "/balsa.services.rs")),
            );

            #[cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]
            fn dispatch(
                context: &mut $crate::Context,
                method: u32,
                input: $crate::Bytes,
            ) -> ::core::result::Result<$crate::Reply, $crate::Status> {
                $(
                    let position = method.wrapping_sub(<$server as $crate::Service>::FIRST);
                    if (position as usize) < <$server as $crate::Service>::METHODS.len() {
                        return <$server as $crate::Service>::call(context, position, input);
                    }
                )+
                ::core::result::Result::Err($crate::private::unknown_method())
            }

            $(const _: $crate::private::Init = $init;)?
            $(const _: $crate::private::Migrate = $migrate;)?
            $crate::export_wasm!(dispatch $(, init = $init)? $(, migrate = $migrate)?);
        };
    };
}

/// The exports and the metadata section of a module; see `ABI.md`.
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
#[macro_export]
macro_rules! export_wasm {
    ($dispatch:ident $(, init = $init:expr)? $(, migrate = $migrate:expr)?) => {
        $crate::export_metadata!();

        // A name that ABI 1 reserves, as the two below are; only this macro, used once in a module, defines them.
        #[allow(unsafe_code)]
        #[unsafe(no_mangle)]
        extern "C" fn balsa_call(method: u32, input_len: u32) -> u32 {
            $crate::private::enter(method, input_len, $dispatch)
        }

        $(
            #[allow(unsafe_code)]
            #[unsafe(no_mangle)]
            extern "C" fn balsa_init() -> u32 {
                $crate::private::enter_init($init)
            }
        )?

        $(
            #[allow(unsafe_code)]
            #[unsafe(no_mangle)]
            extern "C" fn balsa_migrate(from_len: u32) -> u32 {
                $crate::private::enter_migrate(from_len, $migrate)
            }
        )?
    };
}

/// The part of a module's exports that says what it is.
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
#[macro_export]
macro_rules! export_metadata {
    () => {
        // The section and the name below are those that ABI 1 reserves; only this macro, used once in a module, defines them.
        #[allow(unsafe_code)]
        #[used]
        #[unsafe(link_section = "balsa.module")]
        static MODULE: [u8; include_bytes!(concat!(env!("OUT_DIR"), "/balsa.module.bin")).len()] =
            *include_bytes!(concat!(env!("OUT_DIR"), "/balsa.module.bin"));

        #[allow(unsafe_code)]
        #[unsafe(no_mangle)]
        extern "C" fn balsa_abi_1() {}
    };
}

/// Natively there is nothing to export; that `init` and `migrate` are what they should be was checked.
#[cfg(not(target_arch = "wasm32"))]
#[doc(hidden)]
#[macro_export]
macro_rules! export_wasm {
    ($($part:tt)*) => {};
}
