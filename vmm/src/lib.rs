//! The machine.
pub mod floor;
