//! The coppice command.
#![forbid(unsafe_code)]
fn main() {}
