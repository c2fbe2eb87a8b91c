//! The rusd binary.

fn main() -> std::process::ExitCode {
    rusd::cli::main()
}
