//! The binary: an allocator, the command line, an exit code. Everything else is the library's.
//! No other file may set an allocator or end the process with a code.

use std::process::ExitCode;

/// musl's allocator is slow, and glibc's keeps what it once had.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    weir::run()
}
