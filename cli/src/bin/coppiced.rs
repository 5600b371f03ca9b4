//! The node daemon. It lives in the crate fri-plugin; this is its program.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    fri_plugin::coppiced::main()
}
