//! The `pipe` binary: arguments in, exit code out.

/// Tensors of many megabytes come and go at every step; the system's allocator would give their
/// pages back and fault them in again, which took a third of a training step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    pipe::cli::main()
}
